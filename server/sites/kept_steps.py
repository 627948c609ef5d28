"""The finished steps of a run in its journal, and what was known of the sites when each ended."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fedage.common.protocol.heads import SignedHead
from fedage.common.protocol.messages import Payload
from fedage.server.record.journal import Entry, Journal
from fedage.server.sites.attendance import Attendance
from fedage.server.sites.incoming import Answer
from fedage.server.sites.opened_sets import OpenedSets
from fedage.server.sites.site_info import SiteInfo


def step_of(kind: str, *, round_number: int, fold: int) -> str:
    """What the journal calls the step of a request."""
    return f"{kind}, fold {fold}, round {round_number}"


@dataclass(frozen=True)
class Replayed:
    """A step that was finished before the run was resumed: its answers, what else was told, the model after a round."""

    answers: dict[str, Answer]
    more: Mapping[str, Any]
    model: Payload
    known: Mapping[str, Any]
    sums: Payload = field(default_factory=dict)


@dataclass(frozen=True)
class KeptSteps:
    """The journal in terms of answers.

    Parameters
    ----------
    journal
        None in simulation, where nothing is kept.
    attendance, last_heads, patients
        What a session knows of its sites; brought back with a step that is replayed.
    sets
        Over which of them hidden sums were opened.
    """

    journal: Journal | None
    attendance: Attendance
    last_heads: dict[str, SignedHead]
    patients: dict[str, int]
    sets: OpenedSets = field(default_factory=OpenedSets)

    def keep(
        self,
        step: str,
        answers: Mapping[str, Answer],
        *,
        more: Mapping[str, Any] | None = None,
        model: Payload | None = None,
        series: str = "",
        sums: Payload | None = None,
        replaces: int = 0,
    ) -> None:
        """Note a finished step.

        Parameters
        ----------
        sums
            Arrays of all sites together.
        more
            What else is told of the step, JSON.
        model, series
            See `Entry`.
        replaces
            How many of the last steps kept it stands for.
        """
        if self.journal is None:
            return
        fields = {
            "answers": {site: answer.info.model_dump_json(exclude_defaults=True) for site, answer in answers.items()},
            "known": self._known_now(),
            "more": more or {},
        }
        arrays = {f"{site}|{name}": array for site, one in answers.items() for name, array in one.payload.items()}
        arrays |= {f"|{name}": array for name, array in (sums or {}).items()}
        self.journal.keep(Entry(step, fields, arrays, model or {}, series), replaces=replaces)

    def is_next(self, step: str) -> bool:
        """Whether a step is the next that was finished before; of a hidden sum others may have been before it."""
        return self.journal is not None and self.journal.is_next(step)

    def replayed(self, step: str) -> Replayed | None:
        """A step as it was when the run got there before, and what was known of the sites then; None if it did not."""
        entry = self.journal.replayed(step) if self.journal is not None else None
        if entry is None:
            return None
        self.know(entry.fields["known"])
        payloads: dict[str, dict[str, Any]] = {site: {} for site in ("", *entry.fields["answers"])}
        for key, array in entry.arrays.items():
            site, _, name = key.partition("|")
            payloads[site][name] = array
        answers = {
            site: Answer(site, SiteInfo.model_validate_json(info), payloads[site])
            for site, info in entry.fields["answers"].items()
        }
        return Replayed(answers, entry.fields["more"], entry.model, entry.fields["known"], payloads[""])

    def know(self, known: Mapping[str, Any]) -> None:
        """Know of the sites what was known when a step was kept, and nothing else."""
        self.attendance.restore(known["attendance"])
        self.patients.update(known["patients"])
        self.sets.restore(known.get("sets", {}))
        self.last_heads.update({site: SignedHead.from_json(head) for site, head in known["last_heads"].items()})

    def _known_now(self) -> dict[str, Any]:
        """What is known of the sites now, JSON."""
        return {
            "attendance": copy.deepcopy(self.attendance.to_json()),
            "patients": dict(self.patients),
            "sets": self.sets.to_json(),
            "last_heads": {site: head.to_json() for site, head in self.last_heads.items()},
        }
