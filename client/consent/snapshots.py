"""Frozen cohorts: two campaigns over nearly the same patients would give the few who differ away by subtraction.

Approving a campaign freezes who is in its cohort. The next cohort equals an earlier one or differs from each earlier
one by at least the minimum count of patients (symmetric difference |A △ B|), so that the difference of two sums is over
that many. What data set a cohort is of makes no difference: a patient may be in several, and a name is easily changed.
Sums and differences of a cohort and up to three earlier ones leave nobody or that many over too (`cohort_sums`); what
more cohorts give away together is for the minimum count, the policy and differential privacy.

The same holds for the parts of a cohort and for the complete patients of its analyses (`frozen`), by pairs only: those
of two campaigns are equal or far enough apart. And what a campaign reads of each patient is frozen too: approved anew
with a few values corrected, two runs of it would tell them.

A cohort is the set of its patients' keyed hashes, as the site's store has them; the key never comes here.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sqlalchemy import Column, Connection, ForeignKey, Integer, LargeBinary, MetaData, String, Table, select

from fedage.client.consent.cohort_sums import leaves_few_over
from fedage.client.consent.frozen_values import FrozenValues, close_cells, rows_changed
from fedage.client.site.durable import LOCK_WAIT_S, DurableFile, StoreUnavailable
from fedage.common.errors import FedAgeError

SNAPSHOTS_FILE = "snapshots.db"

_HASH = re.compile(r"[0-9a-f]{32,128}")

metadata = MetaData()
asked = Table(
    "cohorts_asked_for",
    metadata,
    Column("sha256", String(64), primary_key=True),
)
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

cells = Table(
    "cells",
    metadata,
    Column("frozen", ForeignKey(frozen.c.id), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("members", LargeBinary, nullable=False),
)
values = Table(
    "patients_values",
    metadata,
    Column("frozen", ForeignKey(frozen.c.id), primary_key=True),
    Column("rows", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
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
    detail = (
        "the cohort or a part of it differs from those approved before by fewer patients than this site's minimum count"
    )

    def __init__(self, message: str, *, digest: str, patients: tuple[str, ...]) -> None:
        self.digest, self.patients = digest, patients
        super().__init__(message)


class PartsTooClose(SnapshotTooClose):
    """A part of a cohort that differs from one of an earlier campaign by too few patients."""

    rule = "parts-too-close"


class CohortsTogetherClose(SnapshotTooClose):
    """A cohort that earlier ones, added and subtracted, leave all but a few patients of."""


class CohortsUsedUp(FedAgeError):
    """More different cohorts were asked for than the policy allows. `.rule` and `.detail` may be sent."""

    rule = "cohorts"
    detail = "as many different cohorts were asked for as this site's policy allows, those it refused among them"


class FewValuesChanged(FedAgeError):
    """What the campaign reads differs from what it read when it was approved before, for too few patients."""

    rule = "few-values-changed"
    detail = "values of fewer patients than this site's minimum count have changed since the campaign was approved"


class SnapshotChanged(FedAgeError):
    """The cohort or its values are not those frozen at approval, or none were. `.rule` and `.detail` may be sent."""

    rule = "snapshot-changed"
    detail = (
        "the site's cohort is not the one it approved the campaign for: its data, or the minimum count or data set of "
        "its policy, have changed since; its administrator approves it anew"
    )


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
    values_sha256
        Of what the campaign reads of them.
    """

    data_set: str
    sha256: str
    patients: tuple[str, ...]
    values_sha256: str = ""

    def require(self, found: FrozenValues) -> None:
        """Raise `SnapshotChanged` unless these are its patients and their values."""
        if (self.sha256, self.values_sha256) != (_sha256(_sorted(found.patients)), _digest(found.rows)):
            raise SnapshotChanged(f"{SnapshotChanged.detail} (fedage site approve)")


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

    def freeze(
        self,
        data_set: str,
        *,
        digest: str,
        found: FrozenValues,
        minimum_count: int,
        few_changes: bool = False,
        at_most: int | None = None,
    ) -> Snapshot:
        """Freeze a campaign's cohort; freezing anew (approved again, data added) goes by the same rule.

        Parameters
        ----------
        few_changes
            Whether values of fewer than `minimum_count` patients may have changed since this campaign was approved.
        at_most
            How many different cohorts may be asked for, ever, whether they are then refused or not: a refusal tells
            that another cohort is near. None for any number.

        Raises
        ------
        CohortsUsedUp
            If it is one more than `at_most`.
        SnapshotTooClose
            If it is neither equal to an earlier cohort nor `minimum_count` patients away from each;
            `CohortsTogetherClose` if a sum or difference of a few earlier ones leaves fewer over;
            `PartsTooClose` if a part is close to one of an earlier campaign's.
        FewValuesChanged
            Unless `few_changes`.
        NoHash
            If a patient is not given as a keyed hash.
        """
        members = _sorted(found.patients)
        sha256 = _sha256(members)
        if at_most is not None and not self._may_ask(sha256, at_most=at_most):
            raise CohortsUsedUp(f"{CohortsUsedUp.detail} (requests.cohorts = {at_most} in policy.toml)")
        with self._file.transaction() as connection:
            equal = _equal(connection, sha256)
            cohort = equal.get(data_set)
            close = None if equal else _too_close(connection, members, minimum_count=minimum_count)
            if close is not None:
                other, theirs = close
                raise SnapshotTooClose(
                    f"data set {data_set}: this cohort differs from that of campaign {other[:16]}… by fewer than "
                    f"{minimum_count} patients; wait for more patients, or use that cohort again",
                    digest=other,
                    patients=theirs,
                )
            if not equal and (other := _left_over(connection, members, minimum_count=minimum_count)):
                raise CohortsTogetherClose(
                    f"data set {data_set}: this cohort and those of campaign {other[:16]}… and others, added and "
                    f"subtracted, leave fewer than {minimum_count} patients over; use one of those cohorts again",
                    digest=other,
                    patients=members,
                )
            _must_be_apart(connection, found, minimum_count=minimum_count)
            if not few_changes:
                _must_not_change_few(connection, digest, found, minimum_count=minimum_count)
            if cohort is None:
                cohort = connection.execute(
                    cohorts.insert()
                    .values(data_set=data_set, sha256=sha256, patients=len(members), hashes=_packed(members))
                    .returning(cohorts.c.id)
                ).scalar_one()
            _keep(connection, digest, cohort, found, minimum_count=minimum_count)
        return Snapshot(data_set=data_set, sha256=sha256, patients=members, values_sha256=_digest(found.rows))

    def _may_ask(self, sha256: str, *, at_most: int) -> bool:
        """Whether a cohort may be asked for; it is written down, and stays so whatever is then said to it."""
        with self._file.transaction() as connection:
            known = set(connection.execute(select(asked.c.sha256)).scalars())
            known |= set(connection.execute(select(cohorts.c.sha256)).scalars())
            if sha256 in known:
                return True
            if len(known) >= at_most:
                return False
            connection.execute(asked.insert().values(sha256=sha256))
            return True

    def campaigns(self) -> set[str]:
        """Digests of all campaigns that a cohort was ever frozen for."""
        with self._file.reading() as connection:
            return set(connection.execute(select(frozen.c.digest)).scalars())

    def of(self, digest: str) -> Snapshot | None:
        """The cohort frozen last for a campaign; None if none was."""
        chosen = (
            select(cohorts, values.c.sha256.label("frozen_values"))
            .join(frozen, frozen.c.cohort == cohorts.c.id)
            .outerjoin(values, values.c.frozen == frozen.c.id)
            .where(frozen.c.digest == digest)
            .order_by(frozen.c.id.desc())
            .limit(1)
        )
        # While an approval compares cohorts, which may take long, the messages of other campaigns are answered.
        with self._file.reading() as connection:
            row = connection.execute(chosen).one_or_none()
        if row is None:
            return None
        return Snapshot(
            data_set=row.data_set,
            sha256=row.sha256,
            patients=_unpacked(row.hashes),
            values_sha256=row.frozen_values or "",
        )

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


def _left_over(connection: Connection, members: tuple[str, ...], *, minimum_count: int) -> str:
    """A campaign among those whose cohorts, added to and subtracted from this one, leave a few over; empty if none."""
    rows = connection.execute(select(cohorts.c.id, cohorts.c.sha256, cohorts.c.hashes).order_by(cohorts.c.id.desc()))
    earlier = list({row.sha256: row for row in rows}.values())
    found = leaves_few_over(members, [_unpacked(row.hashes) for row in earlier], minimum_count=minimum_count)
    if found is None:
        return ""
    first = select(frozen.c.digest).where(frozen.c.cohort == earlier[found].id).limit(1)
    return str(connection.execute(first).scalar_one())


def _must_be_apart(connection: Connection, found: FrozenValues, *, minimum_count: int) -> None:
    """Raise `PartsTooClose` if a part is nearly one of an earlier campaign's."""
    for digest, theirs in _earlier(connection):
        if (close := close_cells(found, theirs, minimum_count=minimum_count)) is not None:
            mine, other = close
            raise PartsTooClose(
                f"the patients of {mine!r} differ from those of {other!r} of campaign {digest[:16]}… by fewer than "
                f"{minimum_count}, whose values the sums of both would give away; the campaigns have to use the same "
                "validation, cohort.healthy, groups and columns (covariates, strata, time and event), or quite "
                "different ones",
                digest=digest,
                patients=theirs.patients,
            )


def _earlier(connection: Connection) -> Iterator[tuple[str, FrozenValues]]:
    """Every freezing so far with its cells, each different one once, with a campaign's digest."""
    seen = set()
    chosen = select(frozen.c.id, frozen.c.digest, cohorts.c.hashes, cohorts.c.patients, cohorts.c.sha256).join(
        cohorts, frozen.c.cohort == cohorts.c.id
    )
    for row in connection.execute(chosen.order_by(frozen.c.id)).all():
        told = connection.execute(select(cells.c.name, cells.c.members).where(cells.c.frozen == row.id)).all()
        key = (row.sha256, tuple(sorted(members for _, members in told)))
        if told and key not in seen:
            seen.add(key)
            masks = {
                name: np.unpackbits(np.frombuffer(members, dtype=np.uint8), count=row.patients).astype(np.bool_)
                for name, members in told
            }
            yield row.digest, FrozenValues(patients=_unpacked(row.hashes), cells=masks)


def _must_not_change_few(connection: Connection, digest: str, found: FrozenValues, *, minimum_count: int) -> None:
    """Raise `FewValuesChanged` if this campaign read almost the same of the same patients before."""
    before = select(cohorts.c.sha256, values.c.rows).select_from(frozen).join(cohorts, frozen.c.cohort == cohorts.c.id)
    before = before.join(values, values.c.frozen == frozen.c.id).where(frozen.c.digest == digest)
    sha256 = _sha256(_sorted(found.patients))
    for row in connection.execute(before):
        if row.sha256 == sha256 and 0 < rows_changed(found.rows, row.rows) < minimum_count:
            raise FewValuesChanged(
                f"what this campaign reads has changed since it was approved for fewer than {minimum_count} patients, "
                "whose values its runs before and after would give away; wait until more have changed, or approve it "
                "with --accept-few-changes"
            )


def _keep(connection: Connection, digest: str, cohort: int, found: FrozenValues, *, minimum_count: int) -> None:
    """Write a freezing down; a cell of fewer than `minimum_count` patients never leaves, so it need not be known."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    row = frozen.insert().values(digest=digest, cohort=cohort, time_utc=now).returning(frozen.c.id)
    number = connection.execute(row).scalar_one()
    connection.execute(values.insert().values(frozen=number, rows=found.rows, sha256=_digest(found.rows)))
    for name, mask in found.cells.items():
        if np.count_nonzero(mask) >= minimum_count:
            connection.execute(cells.insert().values(frozen=number, name=name, members=np.packbits(mask).tobytes()))


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


def _digest(rows: bytes) -> str:
    return hashlib.sha256(rows).hexdigest()
