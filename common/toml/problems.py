"""What is wrong with a campaign file: every problem one line, all problems of a file in one exception."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fedage.common.errors import FedAgeError

MOST_SHOWN = 20
"""Problems of a file that are printed: one file may have as many as it has keys."""
_MOST_CHARACTERS = 2000
"""A key or a value of a file may be as long as the file."""


@dataclass(frozen=True)
class Problem:
    """One mistake.

    Parameters
    ----------
    key
        Dotted key it is about, e.g. `training.rounds`; empty if it is about the file as a whole.
    message
        One line that stands alone: key, value, what is allowed, the mend.
    """

    key: str
    message: str

    def __post_init__(self) -> None:
        # A key or value of the file may hold anything, terminal control codes included.
        object.__setattr__(self, "key", printable(self.key))
        message = printable(self.message)
        if len(message) > _MOST_CHARACTERS:
            message = f"{message[:_MOST_CHARACTERS]} …"
        object.__setattr__(self, "message", message)

    def __str__(self) -> str:
        return self.message


class CampaignErrors(FedAgeError, ValueError):
    """A campaign file that is refused. `.problems` are all of its mistakes, in the order of the file's tables."""

    def __init__(self, problems: Iterable[Problem], *, name: str = "campaign.toml") -> None:
        self.problems = tuple(problems)
        self.name = printable(name)
        super().__init__(self.name, self.problems)

    def __str__(self) -> str:
        count = len(self.problems)
        return problems_text(f"{self.name}: {count} problem{'s' if count != 1 else ''}", self.problems)


def problems_text(heading: str, problems: Sequence[Problem]) -> str:
    """A heading and a line for each problem, of which no more than `MOST_SHOWN` are shown.

    Examples
    --------
    >>> print(problems_text("a.toml: 22 problems", [Problem("", "one")] * 22).splitlines()[-1])
      and 2 more
    """
    lines = [heading, *(f"  - {problem}" for problem in problems[:MOST_SHOWN])]
    if len(problems) > MOST_SHOWN:
        lines.append(f"  and {len(problems) - MOST_SHOWN} more")
    return "\n".join(lines)


def printable(text: str) -> str:
    """Text on one line and without control codes, for a terminal or a log."""
    return "".join(character if character.isprintable() else " " for character in text)
