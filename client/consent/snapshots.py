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

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from fedage.client.consent.cohort_distance import (
    CohortsTogetherClose,
    CohortsUsedUp,
    SnapshotTooClose,
    left_over,
    require_no_few_changes,
    require_parts_apart,
    too_close,
)
from fedage.client.consent.frozen_values import FrozenValues
from fedage.client.consent.snapshot_tables import (
    TABLES,
    cohort_sha256,
    packed,
    rows_sha256,
    sorted_hashes,
    unpacked,
)
from fedage.client.site.durable import LOCK_WAIT_S, DurableFile, StoreUnavailable
from fedage.client.site.sqlite import Connection, insert, scalars
from fedage.common.errors import FedAgeError

SNAPSHOTS_FILE = "snapshots.db"


class SnapshotsUnavailable(StoreUnavailable):
    """The snapshots cannot be read or written: nothing can be approved or answered."""


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

    def require(self, frozen_values: FrozenValues) -> None:
        """Raise `SnapshotChanged` unless these are its patients and their values."""
        now = cohort_sha256(sorted_hashes(frozen_values.patients)), rows_sha256(frozen_values.rows)
        if (self.sha256, self.values_sha256) != now:
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
            home / SNAPSHOTS_FILE, tables=TABLES, unavailable=SnapshotsUnavailable, lock_wait_s=lock_wait_s
        )

    def freeze(
        self,
        data_set: str,
        *,
        digest: str,
        frozen_values: FrozenValues,
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
        members = sorted_hashes(frozen_values.patients)
        sha256 = cohort_sha256(members)
        if at_most is not None and not self._may_ask(sha256, at_most=at_most):
            raise CohortsUsedUp(f"{CohortsUsedUp.detail} (requests.cohorts = {at_most} in policy.toml)")
        with self._file.transaction() as connection:
            equal = _equal(connection, sha256)
            cohort = equal.get(data_set)
            close = None if equal else too_close(connection, members, minimum_count=minimum_count)
            if close is not None:
                other, theirs = close
                raise SnapshotTooClose(
                    f"data set {data_set}: this cohort differs from that of campaign {other[:16]}… by fewer than "
                    f"{minimum_count} patients; wait for more patients, or use that cohort again",
                    digest=other,
                    patients=theirs,
                )
            if not equal and (other := left_over(connection, members, minimum_count=minimum_count)):
                raise CohortsTogetherClose(
                    f"data set {data_set}: this cohort and those of campaign {other[:16]}… and others, added and "
                    f"subtracted, leave fewer than {minimum_count} patients over; use one of those cohorts again",
                    digest=other,
                    patients=members,
                )
            require_parts_apart(connection, frozen_values, minimum_count=minimum_count)
            if not few_changes:
                require_no_few_changes(connection, digest, frozen_values, minimum_count=minimum_count)
            if cohort is None:
                row = {"data_set": data_set, "sha256": sha256, "patients": len(members), "hashes": packed(members)}
                cohort = insert(connection, "cohorts", row)
            _keep(connection, digest, cohort, frozen_values, minimum_count=minimum_count)
        return Snapshot(
            data_set=data_set, sha256=sha256, patients=members, values_sha256=rows_sha256(frozen_values.rows)
        )

    def _may_ask(self, sha256: str, *, at_most: int) -> bool:
        """Whether a cohort may be asked for; it is written down, and stays so whatever is then said to it."""
        with self._file.transaction() as connection:
            known = set(scalars(connection, "SELECT sha256 FROM cohorts_asked_for UNION SELECT sha256 FROM cohorts"))
            if sha256 in known:
                return True
            if len(known) >= at_most:
                return False
            insert(connection, "cohorts_asked_for", {"sha256": sha256})
            return True

    def campaigns(self) -> set[str]:
        """Digests of all campaigns that a cohort was ever frozen for."""
        with self._file.reading() as connection:
            return set(scalars(connection, "SELECT digest FROM frozen"))

    def of(self, digest: str) -> Snapshot | None:
        """The cohort frozen last for a campaign; None if none was."""
        chosen = (
            "SELECT cohorts.data_set, cohorts.sha256, cohorts.hashes, patients_values.sha256 AS frozen_values "
            "FROM frozen JOIN cohorts ON frozen.cohort = cohorts.id "
            "LEFT JOIN patients_values ON patients_values.frozen = frozen.id "
            "WHERE frozen.digest = ? ORDER BY frozen.id DESC LIMIT 1"
        )
        # While an approval compares cohorts, which may take long, the messages of other campaigns are answered.
        with self._file.reading() as connection:
            row = connection.execute(chosen, (digest,)).fetchone()
        if row is None:
            return None
        return Snapshot(
            data_set=row["data_set"],
            sha256=row["sha256"],
            patients=unpacked(row["hashes"]),
            values_sha256=row["frozen_values"] or "",
        )

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _equal(connection: Connection, sha256: str) -> dict[str, int]:
    """Numbers of the equal cohorts frozen before, by data set."""
    same = connection.execute("SELECT data_set, id FROM cohorts WHERE sha256 = ?", (sha256,))
    return {row["data_set"]: row["id"] for row in same}


def _keep(connection: Connection, digest: str, cohort: int, frozen_values: FrozenValues, *, minimum_count: int) -> None:
    """Write a freezing down; a cell of fewer than `minimum_count` patients never leaves, so it need not be known."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    number = insert(connection, "frozen", {"digest": digest, "cohort": cohort, "time_utc": now})
    rows = {"rows": frozen_values.rows, "sha256": rows_sha256(frozen_values.rows)}
    insert(connection, "patients_values", {"frozen": number, **rows})
    for name, mask in frozen_values.cells.items():
        if np.count_nonzero(mask) >= minimum_count:
            insert(connection, "cells", {"frozen": number, "name": name, "members": np.packbits(mask).tobytes()})
