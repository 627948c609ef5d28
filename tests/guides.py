"""README and guides as tests read them: their fenced blocks, and the commands in these."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import click
import typer.main

from fedage.deploy.cli import app

ROOT = Path(__file__).parents[1]
GUIDES = {path.stem: path for path in (ROOT / "README.md", *sorted((ROOT / "deploy" / "guides").glob("*.md")))}
FEDAGE = typer.main.get_command(app)
ELSEWHERE = {
    "campaign resume": "tests/server/test_resume.py",
    "campaign list": "tests/server/test_resume.py",
    "campaign watch": "tests/server/test_status.py",
    "campaign stop": "tests/server/test_status.py",
    "demo": "tests/deploy/test_demo.py",
    "campaign export": "tests/deploy/test_bundle_commands.py",
    "predict": "tests/deploy/test_bundle_commands.py",
    "site out-of-fold": "tests/client/prediction/test_out_of_fold.py",
    "site split": "tests/client/agent/test_campaign_as_other_user.py",
    "site agent": "tests/client/agent/test_campaign_as_other_user.py",
    "site node": "tests/client/agent/test_campaign_as_other_user.py",
}
"""Commands that need another user or another machine, or are what tests themselves are run by, with who runs them."""
NETWORK = (
    "coordinator init", "coordinator start", "site init", "site index", "site policy show", "site policy check",
    "coordinator admit", "site start", "coordinator sites", "campaign new", "campaign check", "campaign run",
    "site status", "site campaigns", "site approve", "coordinator heads", "site audit verify", "site audit show",
    "site revoke", "site decline", "campaign recover", "coordinator rename", "coordinator remove",
)  # fmt: skip
RESEARCH = ("campaign new", "campaign check", "simulate", "compare")


class Command(NamedTuple):
    guide: str
    words: tuple[str, ...]

    @property
    def of_fedage(self) -> tuple[str, ...] | None:
        """The words after `fedage`; None for another command."""
        return self.words[1:] if Path(self.words[0]).name == "fedage" else None

    @property
    def name(self) -> str:
        """Group and command."""
        return " ".join(resolved(self.of_fedage or ())[0])


def fences(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[Command]:
    """Each command of the sh blocks once, in order; `a && b` are two."""
    found = {}
    for guide, path in GUIDES.items():
        for block in fences(path.read_text(encoding="utf-8"), "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                for part in line.split(" && "):
                    if words := tuple(shlex.split(part, comments=True)):
                        found.setdefault(words, Command(guide, words))
    return list(found.values())


def resolved(words: tuple[str, ...]) -> tuple[tuple[str, ...], click.Command, tuple[str, ...]]:
    """The names of a command's groups and its own, the command, and what is left of the words."""
    command, names = FEDAGE, []
    while isinstance(command, click.Group) and len(names) < len(words):
        inner = command.commands.get(words[len(names)])
        if inner is None:
            break
        names.append(words[len(names)])
        command = inner
    return tuple(names), command, words[len(names) :]


EVERY = commands()
OF_FEDAGE = [command for command in EVERY if command.of_fedage is not None]


def check(words: tuple[str, ...]) -> None:
    """Parse the words after `fedage` as the command line does.

    Raises
    ------
    click.UsageError
        If there is no such command, argument or option, or one that is needed is not given.
    """
    names, called, rest = resolved(words)
    if isinstance(called, click.Group):
        raise click.UsageError(f"{' '.join(words)}: no command; there are {', '.join(sorted(called.commands))}")
    called.make_context(names[-1], list(rest))


def ways() -> list[tuple[int, list[str]]]:
    """Of the message, the image, the campaign file and the coefficient: how many files are said, and which."""
    drawn = re.findall(r"^```\n(\d+) files\n(.*?)^```", GUIDES["concepts"].read_text(), re.MULTILINE | re.DOTALL)
    return [(int(said), re.findall(r"^  (\S+\.py) +\S", way, re.MULTILINE)) for said, way in drawn]
