"""Sites that fail round after round sit some out: each would cost the others its deadline."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FAILURES, REST = 3, 5
"""Rounds in a row without a usable update after which a site rests, and for how many rounds."""


@dataclass
class Resting:
    """Who rests. After a rest a site is tried once, and rests again at once if that fails.

    `failures` is in how many rounds in a row a site was asked for nothing, `until` the last round it sits out.
    """

    failures: dict[str, int] = field(default_factory=dict)
    until: dict[str, int] = field(default_factory=dict)

    def asked(self, sites: Sequence[str], *, number: int, quorum: int) -> tuple[str, ...]:
        """The sites to be asked in a round: those that do not rest, or all where these are fewer than the quorum."""
        fit = tuple(site for site in sites if self.until.get(site, 0) < number)
        return fit if len(fit) >= quorum else tuple(sites)

    def after(self, number: int, *, asked: Collection[str], accepted: Collection[str]) -> list[str]:
        """See how a round went; the sites that rest from now on."""
        begin = []
        for site in sorted(asked):
            if site in accepted:
                self.failures.pop(site, None)
                continue
            self.failures[site] = self.failures.get(site, 0) + 1
            if self.failures[site] >= FAILURES:
                self.until[site] = number + REST
                begin.append(site)
        return begin

    def to_json(self) -> dict[str, Any]:
        """As it is now, for `of`."""
        return {"failures": dict(self.failures), "until": dict(self.until)}

    @classmethod
    def of(cls, known: Mapping[str, Any]) -> Resting:
        """As it was when `to_json` was asked; nobody rests in the journal of an earlier release."""
        return cls(dict(known.get("failures", {})), dict(known.get("until", {})))
