"""Campaign text to plain dictionaries, with every syntax error that can be told apart."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from fedage.common.toml.problems import Problem

MAX_TOML_BYTES = 262_144
"""Campaign files, policies and settings are a page or two; anything much longer is a mistake or an attack."""
MAX_DEPTH = 16
"""Dotted keys nest without the parser's own recursion, and whoever walks over them later recurses."""

_POSITION = re.compile(r"^(?P<what>.*) \(at line (?P<line>\d+), column (?P<column>\d+)\)$", re.DOTALL)
_ASSIGNMENT = re.compile(r"^\s*(?P<key>[A-Za-z0-9_.-]+)\s*=")


@dataclass(frozen=True)
class Source:
    """What could be read.

    Parameters
    ----------
    tables
        The file's contents, lists as tuples; None if nothing can be said beyond the syntax errors.
    problems
        Syntax errors.
    lost
        Last parts of the keys on lines that could not be read: they are neither missing nor at their default.
    """

    tables: dict[str, Any] | None
    problems: tuple[Problem, ...] = ()
    lost: frozenset[str] = frozenset()


def read(text: str, *, name: str) -> Source:
    """Read TOML; a line `key = …` that cannot be read is reported and left out, so that the rest is checked too."""
    if (size := len(text.encode("utf-8", "replace"))) > MAX_TOML_BYTES:
        return Source(None, (Problem("", f"{name} has {size} bytes: allowed are {MAX_TOML_BYTES}; shorten it"),))
    if text.startswith("\ufeff"):
        return Source(None, (Problem("", f"{name} begins with a byte order mark: save it as UTF-8 without one"),))
    lines = text.split("\n")
    problems: list[Problem] = []
    lost: set[str] = set()
    while True:
        try:
            tables = tomllib.loads("\n".join(lines))
        except RecursionError:
            return _nested(name)
        except ValueError as error:
            problem, line = _explain(error, name=name)
            problems.append(problem)
            assignment = _ASSIGNMENT.match(lines[line - 1]) if line is not None else None
            if line is None or assignment is None or len(problems) > 50:
                # Nothing to leave out: what follows the first error would be guesswork.
                return Source(None, (problems[0],))
            lost.add(assignment["key"].rpartition(".")[2])
            lines[line - 1] = ""
            continue
        if _too_deep(tables):
            return _nested(name)
        return Source(_frozen(tables), tuple(problems), frozenset(lost))


def _explain(error: ValueError, *, name: str) -> tuple[Problem, int | None]:
    position = _POSITION.match(str(error))
    if position is None:
        where, what, line = name, str(error), None
    else:
        line = int(position["line"])
        where, what = f"{name}, line {line}, column {position['column']}", position["what"]
    what, mend = _what_and_mend(what)
    return Problem("", f"{where}: not valid TOML: {what}; {mend}"), line


def _what_and_mend(what: str) -> tuple[str, str]:
    if what.startswith("Cannot overwrite a value"):
        return "this key is given twice", "keep one of the two lines"
    if what.startswith("Cannot declare"):
        return "this table is given twice", "put its keys under one heading"
    if what.startswith("Invalid value"):
        return (
            "this value cannot be read",
            'write text in "quotes", numbers as 1 or 1.5, and true or false in lower case',
        )
    if what.startswith("Exceeds the limit"):
        return "a whole number with thousands of digits", "write a number that the key allows"
    if what.startswith(("Illegal character '\\n'", "Unterminated", "Expected '\"'", 'Expected "\'"')):
        return "a quoted text is not closed", "close the quotation mark"
    return what[:1].lower() + what[1:], "mend this line"


def _nested(name: str) -> Source:
    return Source(None, (Problem("", f"{name} nests tables or lists too deeply: {MAX_DEPTH} levels are allowed"),))


def _too_deep(tables: dict[str, Any]) -> bool:
    """Whether tables and lists lie in each other more than `MAX_DEPTH` deep; found level by level."""
    level: list[Any] = [tables]
    for _ in range(MAX_DEPTH + 1):
        inside = [each.values() if isinstance(each, dict) else each for each in level]
        level = [item for items in inside for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    if isinstance(value, list):
        return tuple(_frozen(item) for item in value)
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    return value
