"""Reading the audit log: chosen lines, and the same lines as CSV for an auditor's spreadsheet."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from fedage.client.audit.entries import Direction, Entry, Kind, Outcome
from fedage.client.audit.log import ALL_LINES, AuditUnavailable, in_utc
from fedage.client.site.durable import named_failures, read_only

COLUMNS = (
    "sequence",
    "time_utc",
    "direction",
    "kind",
    "outcome",
    "rule",
    "who",
    "campaign",
    "digest",
    "nonce",
    "round",
    "fold",
    "size_bytes",
    "payload_sha256",
    "patients",
    "smallest_cell",
    "epsilon",
    "steps",
    "withheld",
    "folded",
    "hash",
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the log."""

    sequence: int
    time_utc: str
    entry: Entry
    hash: str


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which lines; None is any.

    Parameters
    ----------
    digest, who
        The first characters suffice.
    since, until
        Times with a zone; `until` is not included.
    last
        Only so many, the newest.
    """

    direction: Direction | None = None
    kind: Kind | None = None
    outcome: Outcome | None = None
    rule: str | None = None
    campaign: str | None = None
    digest: str | None = None
    who: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    last: int | None = None

    def let_pass(self, line: Line) -> bool:
        """Whether a line is among them (`last` aside)."""
        entry = line.entry
        equal = (
            (self.direction, entry.direction),
            (self.kind, entry.kind),
            (self.outcome, entry.outcome),
            (self.rule, entry.rule),
            (self.campaign, entry.campaign),
        )
        starts = ((self.digest, entry.digest), (self.who, entry.who))
        return (
            all(wanted is None or wanted == value for wanted, value in equal)
            and all(wanted is None or (value or "").startswith(wanted) for wanted, value in starts)
            and (self.since is None or line.time_utc >= in_utc(self.since))
            and (self.until is None or line.time_utc < in_utc(self.until))
        )


def show(path: Path, filters: Filters | None = None) -> tuple[Line, ...]:
    """The chosen lines of the log at `path`, oldest first. What `verify` would report is left out here.

    Raises
    ------
    AuditUnavailable
        If the log cannot be read.
    """
    chosen = filters or Filters()
    if not path.is_file():
        raise AuditUnavailable(path, "there is no audit log here")
    chosen_lines = [line for line in _read(path) if chosen.let_pass(line)]
    return tuple(chosen_lines if chosen.last is None else chosen_lines[max(0, len(chosen_lines) - chosen.last) :])


def export_csv(chosen: Iterable[Line], *, to: TextIO) -> None:
    """Write lines as CSV with a heading; open the file with `newline=""`."""
    writer = csv.writer(to)
    writer.writerow(COLUMNS)
    for line in chosen:
        entry = line.entry
        values = {
            **entry.to_json(),
            "sequence": line.sequence,
            "time_utc": line.time_utc,
            "hash": line.hash,
            "epsilon": f"{entry.epsilon_micro / 1e6:.6f}",
            "steps": " ".join(entry.steps),
            "withheld": " ".join(f"{held.step}={held.rule}" for held in entry.withheld),
        }
        writer.writerow(["" if values[name] is None else values[name] for name in COLUMNS])


def _read(path: Path) -> Iterator[Line]:
    with named_failures(path, unavailable=AuditUnavailable), read_only(path) as connection:
        for row in connection.execute(ALL_LINES):
            try:
                body = json.loads(row["body"])
                yield Line(
                    sequence=row["sequence"],
                    time_utc=str(body["time_utc"]),
                    entry=Entry.from_json(body),
                    hash=row["hash"],
                )
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
