"""Frozen cohorts: two campaigns over nearly the same patients would give the few who differ away by subtraction.

Approving a campaign freezes who is in its cohort. The next cohort equals an earlier one or differs from each earlier
one by at least the minimum count of patients (symmetric difference |A △ B|), so that the difference of two sums is over
that many. What data set a cohort is of makes no difference: a patient may be in several, and a name is easily changed.
Pairs are compared; what three sums and more give away together is for the minimum count, the policy and differential
privacy.

A cohort is the set of its patients' keyed hashes, as the site's store has them; the key never comes here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Column, Connection, ForeignKey, Integer, LargeBinary, MetaData, String, Table, select

from fedage.client._durable import LOCK_WAIT_S, DurableFile, StoreUnavailable
from fedage.common.errors import FedAgeError

SNAPSHOTS_FILE = "snapshots.db"

_HASH = re.compile(r"[0-9a-f]{32,128}")

metadata = MetaData()
cohorts = Table(
    "cohorts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("data_set", String(63), nullable=False, index=True),
    Column("sha256", String(64), nullable=False),
    Column("patients", Integer, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
)
frozen = Table(
    "frozen",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("digest", String(64), nullable=False, index=True),
    Column("cohort", ForeignKey(cohorts.c.id), nullable=False),
    Column("time_utc", String(27), nullable=False),
)


class SnapshotsUnavailable(StoreUnavailable):
    """The snapshots cannot be read or written: nothing can be approved or answered."""


class NoHash(FedAgeError):
    """Something among the patients is no keyed hash. The message does not quote it."""


class SnapshotTooClose(FedAgeError):
    """A cohort that differs from an earlier one by too few patients. `.rule` and `.detail` may be sent.

    How many they are is not told to anybody outside; the text for the site says which campaign the other cohort is of.
    `.digest` is that campaign's, `.patients` are that cohort's keyed hashes, for whoever would rather use it again.
    """

    rule = "snapshot-too-close"
    detail = "the cohort differs from one approved before by fewer patients than this site's minimum count"

    def __init__(self, message: str, *, digest: str, patients: tuple[str, ...]) -> None:
        self.digest, self.patients = digest, patients
        super().__init__(message)


class SnapshotChanged(FedAgeError):
    """The cohort is not the one frozen at approval, or none was. `.rule` and `.detail` may be sent."""

    rule = "snapshot-changed"
    detail = "the site's cohort is not the one it approved the campaign for; its administrator approves it anew"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """One frozen cohort.

    Parameters
    ----------
    data_set
        Its name in the site's policy.
    sha256
        Of the sorted hashes, one a line.
    patients
        The keyed hashes, sorted.
    """

    data_set: str
    sha256: str
    patients: tuple[str, ...]


class Snapshots:
    """The frozen cohorts in a site's home, `snapshots.db`, kept for good.

    Raises
    ------
    SnapshotsUnavailable
        If the file cannot be used; from every method too.
    """

    def __init__(self, home: Path, *, lock_wait_s: float = LOCK_WAIT_S) -> None:
        self._file = DurableFile(
            home / SNAPSHOTS_FILE, tables=metadata, unavailable=SnapshotsUnavailable, lock_wait_s=lock_wait_s
        )

    def freeze(self, data_set: str, *, digest: str, patients: Iterable[str], minimum_count: int) -> Snapshot:
        """Freeze a campaign's cohort; freezing anew (approved again, data added) goes by the same rule.

        Raises
        ------
        SnapshotTooClose
            If it is neither equal to an earlier cohort nor `minimum_count` patients away from each.
        NoHash
            If a patient is not given as a keyed hash.
        """
        members = _sorted(patients)
        sha256 = _sha256(members)
        with self._file.transaction() as connection:
            equal = _equal(connection, sha256)
            cohort = equal.get(data_set)
            if cohort is None:
                close = None if equal else _too_close(connection, members, minimum_count=minimum_count)
                if close is not None:
                    other, theirs = close
                    raise SnapshotTooClose(
                        f"data set {data_set}: this cohort differs from that of campaign {other[:16]}… by fewer than "
                        f"{minimum_count} patients; wait for more patients, or use that cohort again",
                        digest=other,
                        patients=theirs,
                    )
                cohort = connection.execute(
                    cohorts.insert()
                    .values(data_set=data_set, sha256=sha256, patients=len(members), hashes=_packed(members))
                    .returning(cohorts.c.id)
                ).scalar_one()
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            connection.execute(frozen.insert().values(digest=digest, cohort=cohort, time_utc=now))
        return Snapshot(data_set=data_set, sha256=sha256, patients=members)

    def of(self, digest: str) -> Snapshot | None:
        """The cohort frozen last for a campaign; None if none was."""
        chosen = (
            select(cohorts)
            .join(frozen, frozen.c.cohort == cohorts.c.id)
            .where(frozen.c.digest == digest)
            .order_by(frozen.c.id.desc())
            .limit(1)
        )
        with self._file.transaction() as connection:
            row = connection.execute(chosen).one_or_none()
        if row is None:
            return None
        return Snapshot(data_set=row.data_set, sha256=row.sha256, patients=_unpacked(row.hashes))

    def require(self, digest: str, *, patients: Iterable[str]) -> Snapshot:
        """The campaign's frozen cohort, if these are its patients.

        Raises
        ------
        SnapshotChanged
            If they are not, or none was frozen.
        """
        snapshot = self.of(digest)
        if snapshot is None or snapshot.sha256 != _sha256(_sorted(patients)):
            raise SnapshotChanged(f"campaign {digest[:16]}…: {SnapshotChanged.detail} (fedage site approve)")
        return snapshot

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _equal(connection: Connection, sha256: str) -> dict[str, int]:
    """Numbers of the equal cohorts frozen before, by data set."""
    same = select(cohorts.c.data_set, cohorts.c.id).where(cohorts.c.sha256 == sha256)
    return {row.data_set: row.id for row in connection.execute(same)}


def _too_close(
    connection: Connection, members: tuple[str, ...], *, minimum_count: int
) -> tuple[str, tuple[str, ...]] | None:
    """A campaign whose cohort is fewer than `minimum_count` patients away and that cohort, if there is one."""
    mine = set(members)
    # |A △ B| ≥ ||A| − |B||: a cohort of another size need not be read.
    near = select(cohorts.c.id, cohorts.c.hashes).where(
        cohorts.c.patients.between(len(members) - minimum_count + 1, len(members) + minimum_count - 1),
    )
    for row in connection.execute(near):
        theirs = _unpacked(row.hashes)
        if 0 < len(mine.symmetric_difference(theirs)) < minimum_count:
            first = select(frozen.c.digest).where(frozen.c.cohort == row.id).order_by(frozen.c.id).limit(1)
            digest: str = connection.execute(first).scalar_one()
            return digest, theirs
    return None


def _sorted(patients: Iterable[str]) -> tuple[str, ...]:
    given = set(patients)
    if not all(_HASH.fullmatch(str(member)) for member in given) or len({len(member) for member in given}) > 1:
        raise NoHash("patients must be keyed hashes of one length, 32 to 128 hexadecimal digits in lower case")
    return tuple(sorted(given))


def _packed(members: tuple[str, ...]) -> bytes:
    return "\n".join(members).encode()


def _unpacked(hashes: bytes) -> tuple[str, ...]:
    return tuple(hashes.decode().split("\n")) if hashes else ()


def _sha256(members: tuple[str, ...]) -> str:
    return hashlib.sha256(_packed(members)).hexdigest()
