"""The exceptions of the product: drawn once, and complete."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import fedage.common.errors as errors
from fedage.client.disclosure.guard import Withheld
from fedage.common.errors import FedAgeError, Refusal
from fedage.common.protocol.messages import RequestRefused

ROOT = Path(__file__).parents[2]
BUILTIN = {"Exception", "ValueError", "RuntimeError", "KeyError", "OSError"}


def drawn() -> dict[str, tuple[str, str]]:
    """Base and module of each exception in the docstring, by name."""
    found: dict[str, tuple[str, str]] = {}
    above: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if line in BUILTIN:
            above = [line]
        elif match := re.fullmatch(r"([│ ]*)[├└]── (\w+) +(\S+)", line):
            depth = len(match[1]) // 4 + 1
            above[depth:] = [match[2]]
            found[match[2]] = above[depth - 1], match[3]
    return found


def classes() -> Iterator[tuple[str, list[str], str]]:
    for folder in ("client", "common", "deploy", "server"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef) and node.bases:
                    module = file.relative_to(ROOT).as_posix().removesuffix(".py").removesuffix("/__init__")
                    yield node.name, [ast.unparse(base).rpartition(".")[2] for base in node.bases], module


def test_every_public_exception_is_drawn_under_its_base_with_its_module() -> None:
    known, defined = set(BUILTIN), {}
    while len(defined) < len(found := {name: (bases[0], at) for name, bases, at in classes() if known & {*bases}}):
        defined, known = found, known | set(found)
    public = {name: about for name, about in defined.items() if not name.startswith("_")}
    assert drawn() == public, "draw it in common/errors.py"


@pytest.mark.parametrize("kind", [Refusal, RequestRefused, Withheld])
def test_a_refusal_says_its_rule_and_why_and_is_for_no_terminal(kind: type[Refusal]) -> None:
    refusal = kind("runs", "as many were begun")
    assert (refusal.rule, refusal.detail, str(refusal)) == ("runs", "as many were begun", "runs: as many were begun")
    assert not isinstance(refusal, FedAgeError)
