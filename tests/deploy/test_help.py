"""The help of the command line: every command, argument and option says what it is for."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
import typer.main
from click.testing import CliRunner

from fedage.deploy.cli import app

ROOT = typer.main.get_command(app)


def commands(command: click.Command = ROOT, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command and group below one, with the words that call it."""
    yield " ".join(path), command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


EVERY = dict(commands())


@pytest.mark.parametrize("words", EVERY)
def test_every_command_argument_and_option_has_a_help(words: str) -> None:
    command = EVERY[words]
    assert command.help
    without = [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]
    assert without == [], "parameters without a help text"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("campaign run", "the campaign file"),
        ("coordinator admit", "the site's node.pub"),
        ("site revoke", "digest of an approved campaign, or its start"),
        ("site policy check", "a policy file; the site's own if not given"),
        ("compare", "folders of runs, or their results.json"),
    ],
)
def test_the_help_of_an_argument_is_shown(words: str, shown: str) -> None:
    """With a version of click that knows helps of arguments itself, the Typer that Flower allows loses them."""
    said = CliRunner().invoke(ROOT, [*words.split(), "--help"], terminal_width=200, env={"COLUMNS": "200"})
    assert said.exit_code == 0
    assert shown in said.output
