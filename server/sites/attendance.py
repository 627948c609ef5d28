"""Who takes part in a run, as what, and what went wrong at each site, in words for the results and whoever follows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedage.common.campaign.types import Role
from fedage.common.presentation.participation import VALIDATION_ONLY
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, KINDS, SECURE, TRAIN
from fedage.server.record.events import EventLog

NOT_YET = "not-approved"
"""The rule of a site whose administrator has not decided: it is asked again while the campaign waits for sites."""
_FINAL = frozenset({"budget", "message-kind", "runs"})
"""Rules that refuse a kind of message for the rest of a run: what a site has spent or allows does not come back."""


@dataclass
class _Streak:
    """A trouble that comes again and again, told once."""

    step: str
    reason: str
    first_round: int
    last_round: int
    times: int = 1

    def __str__(self) -> str:
        step = KINDS.get(self.step, self.step)
        if self.last_round > self.first_round:
            return f"{step} (rounds {self.first_round} to {self.last_round}): {self.reason}"
        if self.last_round:
            return f"{step} (round {self.last_round}): {self.reason}"
        return f"{step}: {self.reason}" if self.times == 1 else f"{step} ({self.times} times): {self.reason}"

    def goes_on(self, step: str, reason: str, round_number: int) -> bool:
        """Take in another trouble if it is the same, in the next round or outside rounds."""
        if (step, reason) != (self.step, self.reason):
            return False
        if round_number != (self.last_round + 1 if self.last_round else 0):
            return False
        self.last_round, self.times = round_number, self.times + 1
        return True


@dataclass
class Attendance:
    """The sites of one run.

    `refused` is why a site does not take part at all, `undecided` what a site says that has not approved the campaign
    yet, `troubles` is all that went wrong at each, `kinds` what the policy of each site that accepted the offer answers
    (None: everything, in simulation).
    """

    events: EventLog
    role_in_file: Callable[[str], Role] = lambda _site: "train"
    refused: dict[str, str] = field(default_factory=dict)
    undecided: dict[str, str] = field(default_factory=dict)
    troubles: dict[str, list[str]] = field(default_factory=dict)
    kinds: dict[str, frozenset[str] | None] = field(default_factory=dict)
    _closed: set[tuple[str, str]] = field(default_factory=set)
    _streaks: dict[str, _Streak] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What is known now, for `restore`."""
        return {
            "refused": self.refused,
            "undecided": self.undecided,
            "troubles": self.troubles,
            "kinds": {site: None if kinds is None else sorted(kinds) for site, kinds in self.kinds.items()},
            "closed": sorted(self._closed),
            "streaks": {site: asdict(streak) for site, streak in self._streaks.items()},
        }

    def restore(self, known: Mapping[str, Any]) -> None:
        """Know what was known at an earlier time, as `to_json` gave it, and nothing else."""
        self.refused, self.undecided = dict(known["refused"]), dict(known["undecided"])
        self.troubles = {site: list(texts) for site, texts in known["troubles"].items()}
        self.kinds = {site: None if kinds is None else frozenset(kinds) for site, kinds in known["kinds"].items()}
        self._closed = {(site, step) for site, step in known["closed"]}
        self._streaks = {site: _Streak(**streak) for site, streak in known["streaks"].items()}

    def note(
        self, site: str, step: str, reason: str, *, round_number: int = 0, rule: str = "", set_aside_by: str = ""
    ) -> None:
        """Record what went wrong at a site.

        `rule` is the one it refused by, if it refused; `set_aside_by` the one by which its answer does not count here.
        """
        streak, texts = self._streaks.get(site), self.troubles.setdefault(site, [])
        trouble = f"refused ({rule}): {reason}" if rule else f"{reason} ({set_aside_by})" if set_aside_by else reason
        if streak is not None and streak.goes_on(step, trouble, round_number):
            texts[-1] = str(streak)
        else:
            self._streaks[site] = _Streak(step, trouble, round_number, round_number)
            texts.append(str(self._streaks[site]))
        if rule in _FINAL:
            self._closed.add((site, step))
        named = rule or set_aside_by
        self.events.emit("site-trouble", site=site, step=step, round=round_number, rule=named, reason=trouble)

    def answer_to_offer(self, site: str, kinds: Collection[str] | None) -> None:
        """Record that a site accepted the offer, and what its policy answers; None: everything, in simulation."""
        self.undecided.pop(site, None)
        self.kinds[site] = None if kinds is None else frozenset(kinds)

    def no_more_waiting(self) -> None:
        """Whoever is undecided now does not take part."""
        for site, reason in sorted(self.undecided.items()):
            self.leave_out(site, reason, rule=NOT_YET)

    def leave_out(self, site: str, reason: str, *, rule: str = "") -> None:
        """Record that a site does not take part in the run."""
        self.undecided.pop(site, None)
        self.refused[site] = f"{rule}: {reason}" if rule else reason
        trouble = f"refused ({rule}): {reason}" if rule else reason
        self.events.emit("site-left-out", site=site, rule=rule, reason=trouble)

    def answers(self, site: str, kind: str) -> bool:
        """Whether a site answers a kind of message, by the file's role for it and by its policy."""
        if kind == TRAIN and self.role_in_file(site) == "validate":
            return False
        kinds = self.kinds.get(site)
        if kind == SECURE:
            return kinds is None or bool(kinds - {KINDS[DESCRIBE]})
        return kinds is None or KINDS[kind] in kinds

    def may(self, site: str, kind: str) -> bool:
        """Whether a site is asked for a kind of message: its policy answers it, and no refusal was for good."""
        return self.answers(site, kind) and (site, kind) not in self._closed

    def role(self, site: str) -> str:
        """What a site that accepted the offer does in the run, by the file or its policy; empty for others."""
        if site not in self.kinds:
            return ""
        kinds = self.kinds[site]
        if self.role_in_file(site) == "validate" and (kinds is None or {KINDS[EVALUATE], KINDS[ANALYSE]} <= kinds):
            return VALIDATION_ONLY
        if kinds is None or kinds >= {KINDS[kind] for kind in (TRAIN, EVALUATE, ANALYSE)}:
            return "training and evaluation"
        if not kinds & {KINDS[TRAIN], KINDS[EVALUATE], KINDS[ANALYSE]}:
            return "answers offers only"
        if KINDS[TRAIN] not in kinds:
            return "evaluation only" if KINDS[EVALUATE] in kinds else "analyses only"
        return "training only" if not kinds & {KINDS[EVALUATE], KINDS[ANALYSE]} else f"answers {_list(kinds)} only"

    def why_missing(self, answered: Collection[str], *, expected: Iterable[str], kind: str) -> str:
        """Why the sites that did not answer did not, a clause each, in the order of their names."""
        clauses = []
        for site in sorted({*expected, *self.kinds, *self.refused, *self.troubles} - set(answered)):
            if site in self.refused:
                clauses.append(f"{site}: {self.refused[site]}")
            elif site in self.kinds and not self.answers(site, kind):
                whose = "by the campaign file" if self.role(site) == VALIDATION_ONLY else "by its policy"
                clauses.append(f"{site}: {self.role(site)}, {whose}")
            elif texts := self.troubles.get(site):
                clauses.append(f"{site}: {texts[-1]}")
            else:
                clauses.append(f"{site}: did not answer")
        return "; ".join(clauses) or "no other site known"


def _list(kinds: Iterable[str]) -> str:
    """Kinds in the order of a campaign."""
    return ", ".join(KINDS[kind] for kind in (DESCRIBE, TRAIN, EVALUATE, ANALYSE) if KINDS[kind] in kinds)
