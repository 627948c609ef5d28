"""Flags first, then a question if there is a terminal, else the default: how `campaign new` comes by its answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer

_NOT_READ = {int: "a whole number", float: "a number"}


class Questions:
    """Asks for what no flag gave.

    Parameters
    ----------
    asking
        Whether there is somebody to ask.
    """

    def __init__(self, *, asking: bool) -> None:
        self.asking = asking

    def __call__(self, key: str, question: str, given: Any, *, default: Any, read: Callable[[str], Any] = str) -> Any:
        """The answer to one question; `key` is where it goes in the campaign file, which says what may be there."""
        if given is not None:
            return read(given)
        if not self.asking:
            return default

        def checked(text: str) -> Any:
            try:
                value = read(text)
            except ValueError as error:
                raise typer.BadParameter(
                    f"{text!r} is not {_NOT_READ[read]}" if isinstance(read, type) and read in _NOT_READ else str(error)
                ) from None
            if problem := _problem(key, value):
                raise typer.BadParameter(problem)
            return value

        shown = ",".join(default) if isinstance(default, tuple) else str("" if default is None else default)
        return typer.prompt(question, default=shown, value_proc=checked)

    def whether(self, question: str) -> bool:
        """Yes or no; no where nobody can be asked."""
        return self.asking and typer.confirm(question, default=False)


def words(text: str) -> tuple[str, ...]:
    """What stands between commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def maybe(text: str) -> str | None:
    """A column, or None for nothing or a hyphen."""
    return text.strip() if text.strip() not in ("", "-") else None


def _problem(key: str, value: Any) -> str:
    """What is wrong with one answer; empty if nothing, or if the file as a whole has to be seen to know."""
    from fedage.common.campaign_file.parse import TABLES
    from fedage.common.toml.tables import check_table

    table, _, field = key.partition(".")
    if value in (None, "", ()) or table not in TABLES:
        return ""
    problems = check_table(table, {field: value}, TABLES[table]).problems
    return next((problem.message for problem in problems if problem.key.startswith(key)), "")
