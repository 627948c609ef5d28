"""What the plan names and the code does not have yet. Building something means deleting its line here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fedage.common.campaign_file._sound import ValidValues
from fedage.common.toml.problems import Problem
from fedage.common.toml.words import show


@dataclass(frozen=True)
class NotBuilt:
    """A key, or some of its values, that a campaign cannot have yet.

    Parameters
    ----------
    key
        Dotted key.
    instead
        The mend.
    values
        The values that are refused; None refuses the key whatever its value.
    """

    key: str
    instead: str
    values: tuple[Any, ...] | None = None


NOT_BUILT: tuple[NotBuilt, ...] = (
    NotBuilt("bias.method", 'use bias.method = "linear"', values=("age-level",)),
    NotBuilt("bias.scope", 'use bias.scope = "site" or "pooled"', values=("partial",)),
)


def not_built(sound: ValidValues) -> Iterator[Problem]:
    """Every key of the file that is planned and not built."""
    for rule in NOT_BUILT:
        if not sound.given(rule.key):
            continue
        value = sound[rule.key]
        if rule.values is None or value in rule.values:
            yield Problem(rule.key, f"{rule.key} = {show(value)}: planned, not built yet: {rule.instead}")
