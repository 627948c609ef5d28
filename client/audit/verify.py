"""Is the audit log what this site wrote, all of it, in order?

What each attack leaves behind: a line that was edited or inserted does not carry the site's signature; a removed one
leaves a gap in the numbers; a reordered one stands at another number than it says; lines cut off the end are missed by
a head that somebody kept; a history rewritten with the site's own key disagrees with such a head.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.client.audit.entries import Entry
from fedage.client.audit.log import (
    ALL_LINES,
    HEAD_FILE,
    PUBLIC_KEY_FILE,
    genesis,
    line_hash,
    read_heads,
    read_public_key,
)
from fedage.client.site.durable import StoreUnavailable, named_failures, read_only
from fedage.client.site.sqlite import Row
from fedage.common.protocol.heads import HeadMalformed, SignedHead


class Damage(StrEnum):
    """What is wrong."""

    UNREADABLE = "unreadable"
    EDITED = "edited"
    INSERTED = "inserted"
    REMOVED = "removed"
    REORDERED = "reordered"
    TRUNCATED = "truncated"
    REWRITTEN = "rewritten"
    HEAD_FORGED = "head-forged"


@dataclass(frozen=True, kw_only=True)
class LogFinding:
    """One thing wrong, at a line number of the log (None for the log as a whole), in a sentence."""

    damage: Damage
    sequence: int | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class VerificationReport:
    """What a verification found.

    Parameters
    ----------
    lines
        How many lines were read.
    findings
        Everything wrong, in the order of the log; empty if the log is intact.
    clock_jumps
        Lines whose time is before that of the line above: the site's clock was set back. No damage.
    heads
        How many kept heads the log was held against. With none, lines cut off the end cannot be seen.
    """

    lines: int
    findings: tuple[LogFinding, ...]
    clock_jumps: tuple[int, ...] = ()
    heads: int = 0

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


@dataclass(frozen=True)
class _Line:
    """A stored line with what its own body says."""

    position: int
    claims: int | None
    time_utc: str
    previous: str
    hash: str
    ours: bool

    @property
    def number(self) -> int:
        """Its number by its own body; 0 where the body has none."""
        return self.claims or 0


def verify(
    path: Path, *, heads: Iterable[SignedHead] = (), public_key: Ed25519PublicKey | None = None
) -> VerificationReport:
    """Read a whole log and say everything that is wrong with it. Nothing is written.

    Parameters
    ----------
    path
        `audit.db`, or a copy of it; the newest lines may still be in `audit.db-wal`, which belongs to it.
    heads
        Heads kept elsewhere: by a coordinator, or a replicated `audit.head`. The `audit.head` beside the log is used
        too where there is one.
    public_key
        The site's public audit key; by default `audit.pub` beside the log.
    """
    findings: list[LogFinding] = []
    try:
        key = public_key or read_public_key(path.parent / PUBLIC_KEY_FILE)
    except (OSError, ValueError) as error:
        return _unreadable(f"no public audit key to verify with ({type(error).__name__}); give {PUBLIC_KEY_FILE}")
    # Heads first: a running agent may add a line in between, and the log then is the longer of the two.
    known_heads = _kept_heads(path, heads, findings)
    try:
        stored = list(_read(path, key))
    except StoreUnavailable as error:
        return _unreadable(str(error))
    genuine = [head.sequence for head in known_heads if head.is_signed_by(key)]
    findings += _check_lines(stored, newest_head=max(genuine, default=None))
    findings += _check_chain(stored, genesis(key))
    findings += _check_heads(stored, known_heads, key)
    return VerificationReport(
        lines=len(stored),
        findings=tuple(sorted(findings, key=lambda finding: finding.sequence or 0)),
        clock_jumps=tuple(
            after.position for before, after in itertools.pairwise(stored) if after.time_utc < before.time_utc
        ),
        heads=len(known_heads),
    )


def _unreadable(detail: str) -> VerificationReport:
    return VerificationReport(lines=0, findings=(LogFinding(damage=Damage.UNREADABLE, sequence=None, detail=detail),))


def _read(path: Path, key: Ed25519PublicKey) -> Iterable[_Line]:
    if not path.is_file():
        raise StoreUnavailable(path, "there is no audit log here")
    with named_failures(path, unavailable=StoreUnavailable), read_only(path) as connection:
        for row in connection.execute(ALL_LINES):
            yield _line(row, key)


def _line(row: Row, key: Ed25519PublicKey) -> _Line:
    claims, time_utc, ours = None, "", False
    try:
        body = json.loads(row["body"])
        claims, time_utc = body["sequence"], body["time_utc"]
        Entry.from_json(body)
        head = SignedHead(sequence=claims, hash=row["hash"], time_utc=time_utc, signature=row["signature"].hex())
        ours = line_hash(row["previous"], row["body"]) == row["hash"] and head.is_signed_by(key)
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        pass  # whatever it is, this site did not write it
    known = claims if type(claims) is int else None
    return _Line(row["sequence"], known, str(time_utc), str(row["previous"]), str(row["hash"]), ours)


def _check_lines(stored: list[_Line], *, newest_head: int | None) -> list[LogFinding]:
    """Lines edited, inserted, reordered or missing, told apart by which lines still carry the site's signature."""
    findings: list[LogFinding] = []
    ours = {line.number for line in stored if line.ours}
    numbers: set[int] = set()
    shift = 0
    for line in stored:
        at = line.position
        beyond = newest_head is not None and at > newest_head
        if not line.ours:
            added = at in ours or line.claims in ours or beyond
            damage = Damage.INSERTED if added else Damage.EDITED
            findings.append(_finding(damage, at, f"line {at} is not what this site signed"))
        elif line.number in numbers:
            findings.append(_finding(Damage.INSERTED, at, f"line {at} is a copy of line {line.number}"))
        else:
            # A whole run of lines moved together is one finding.
            if line.number - at not in (0, shift):
                findings.append(_finding(Damage.REORDERED, at, f"line {line.number} stands at {at}"))
            shift = line.number - at
            numbers.add(line.number)
    replaced = {line.position for line in stored if not line.ours}
    for first, end in _runs(sorted(set(range(1, max(ours, default=0))) - ours - replaced)):
        what = f"line {first} is missing" if first == end else f"lines {first} to {end} are missing"
        findings.append(_finding(Damage.REMOVED, first, what))
    return findings


def _check_chain(stored: list[_Line], start: str) -> list[LogFinding]:
    """Signed lines that do not follow from one another: only the site's own key can make them."""
    findings = []
    by_number = {line.number: line for line in stored if line.ours}
    for number, line in by_number.items():
        before = by_number.get(number - 1)
        expected = start if number == 1 else before.hash if before else line.previous
        if line.previous != expected:
            findings.append(_finding(Damage.REWRITTEN, number, f"line {number} does not follow from the one before it"))
    return findings


def _check_heads(stored: list[_Line], known_heads: list[SignedHead], key: Ed25519PublicKey) -> list[LogFinding]:
    findings = []
    by_number = {line.number: line for line in stored if line.ours}
    replaced = {line.position for line in stored if not line.ours}
    last = max(by_number, default=0)
    lost = 0
    for head in known_heads:
        number = head.sequence
        if not head.is_signed_by(key):
            findings.append(
                _finding(Damage.HEAD_FORGED, number, f"a head for line {number} is not signed by this site")
            )
        elif number in by_number and by_number[number].hash != head.hash:
            what = "the log went on from an older copy, or was rewritten"
            findings.append(
                _finding(Damage.REWRITTEN, number, f"line {number} is not the one whose head was kept: {what}")
            )
        elif number > last and number not in replaced:
            lost = max(lost, number)
    if lost:
        findings.append(
            _finding(Damage.TRUNCATED, last + 1, f"the log ends at line {last}, but line {lost} was written")
        )
    return findings


def _kept_heads(path: Path, heads: Iterable[SignedHead], findings: list[LogFinding]) -> list[SignedHead]:
    known_heads = list(heads)
    beside = path.with_name(HEAD_FILE)
    try:
        known_heads += read_heads(beside)
    except FileNotFoundError:
        pass
    except (OSError, HeadMalformed):
        findings.append(_finding(Damage.HEAD_FORGED, None, f"{HEAD_FILE} beside the log cannot be read"))
    return known_heads


def _finding(damage: Damage, sequence: int | None, detail: str) -> LogFinding:
    return LogFinding(damage=damage, sequence=sequence, detail=detail)


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Whole numbers as first and last of each unbroken run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
