"""How far a cohort has to be from those frozen before, a part from theirs, and its values from those it had."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fedage.client.consent.cohort_sums import leaves_few_over
from fedage.client.consent.frozen_values import FrozenValues, close_cells, rows_changed
from fedage.client.consent.snapshot_tables import cohort_sha256, sorted_hashes, unpacked
from fedage.client.site.sqlite import Connection, scalar
from fedage.common.errors import FedAgeError


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


def too_close(
    connection: Connection, members: tuple[str, ...], *, minimum_count: int
) -> tuple[str, tuple[str, ...]] | None:
    """A campaign whose cohort is fewer than `minimum_count` patients away and that cohort, if there is one."""
    mine = set(members)
    # |A △ B| ≥ ||A| − |B||: a cohort of another size need not be read.
    sizes = (len(members) - minimum_count + 1, len(members) + minimum_count - 1)
    for row in connection.execute("SELECT id, hashes FROM cohorts WHERE patients BETWEEN ? AND ?", sizes):
        theirs = unpacked(row["hashes"])
        if 0 < len(mine.symmetric_difference(theirs)) < minimum_count:
            return _first_campaign(connection, row["id"]), theirs
    return None


def left_over(connection: Connection, members: tuple[str, ...], *, minimum_count: int) -> str:
    """A campaign among those whose cohorts, added to and subtracted from this one, leave a few over; empty if none."""
    rows = connection.execute("SELECT id, sha256, hashes FROM cohorts ORDER BY id DESC")
    earlier = list({row["sha256"]: row for row in rows}.values())
    place = leaves_few_over(members, [unpacked(row["hashes"]) for row in earlier], minimum_count=minimum_count)
    return "" if place is None else _first_campaign(connection, earlier[place]["id"])


def _first_campaign(connection: Connection, cohort: int) -> str:
    """The first campaign that a cohort was frozen for."""
    return str(scalar(connection, "SELECT digest FROM frozen WHERE cohort = ? ORDER BY id LIMIT 1", (cohort,)))


def require_parts_apart(connection: Connection, frozen_values: FrozenValues, *, minimum_count: int) -> None:
    """Raise `PartsTooClose` if a part is nearly one of an earlier campaign's."""
    for digest, theirs in _earlier(connection):
        if (close := close_cells(frozen_values, theirs, minimum_count=minimum_count)) is not None:
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
    known_keys = set()
    chosen = (
        "SELECT frozen.id, frozen.digest, cohorts.hashes, cohorts.patients, cohorts.sha256 "
        "FROM frozen JOIN cohorts ON frozen.cohort = cohorts.id ORDER BY frozen.id"
    )
    for row in connection.execute(chosen).fetchall():
        of_freezing = connection.execute("SELECT name, members FROM cells WHERE frozen = ?", (row["id"],))
        cell_rows = of_freezing.fetchall()
        key = (row["sha256"], tuple(sorted(members for _, members in cell_rows)))
        if cell_rows and key not in known_keys:
            known_keys.add(key)
            masks = {
                name: np.unpackbits(np.frombuffer(members, dtype=np.uint8), count=row["patients"]).astype(np.bool_)
                for name, members in cell_rows
            }
            yield row["digest"], FrozenValues(patients=unpacked(row["hashes"]), cells=masks)


def require_no_few_changes(
    connection: Connection, digest: str, frozen_values: FrozenValues, *, minimum_count: int
) -> None:
    """Raise `FewValuesChanged` if this campaign read almost the same of the same patients before."""
    before = (
        "SELECT cohorts.sha256, patients_values.rows FROM frozen JOIN cohorts ON frozen.cohort = cohorts.id "
        "JOIN patients_values ON patients_values.frozen = frozen.id WHERE frozen.digest = ?"
    )
    sha256 = cohort_sha256(sorted_hashes(frozen_values.patients))
    for row in connection.execute(before, (digest,)):
        if row["sha256"] == sha256 and 0 < rows_changed(frozen_values.rows, row["rows"]) < minimum_count:
            raise FewValuesChanged(
                f"what this campaign reads has changed since it was approved for fewer than {minimum_count} patients, "
                "whose values its runs before and after would give away; wait until more have changed, or approve it "
                "with --accept-few-changes"
            )
