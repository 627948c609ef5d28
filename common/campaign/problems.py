"""What is wrong with a campaign file: every problem one line, all problems of a file in one exception."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from fedage.common.errors import FedAgeError


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
        object.__setattr__(self, "message", printable(self.message))

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
        heading = f"{self.name}: {count} problem{'s' if count != 1 else ''}"
        return "\n".join([heading, *(f"  - {problem}" for problem in self.problems)])


def printable(text: str) -> str:
    """Text on one line and without control codes, for a terminal or a log."""
    return "".join(character if character.isprintable() else " " for character in text)
