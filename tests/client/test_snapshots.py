"""Frozen cohorts: equal or far enough apart, whatever is tried in between."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest

from fedage.client.consent.cohort_distance import SnapshotTooClose
from fedage.client.consent.frozen_values import FrozenValues
from fedage.client.consent.snapshot_tables import NoHash
from fedage.client.consent.snapshots import SnapshotChanged, Snapshots, SnapshotsUnavailable

MINIMUM = 5


def people(*numbers: int) -> list[str]:
    return [hashlib.sha256(str(number).encode()).hexdigest() for number in numbers]


def digest(number: int) -> str:
    return hashlib.sha256(b"campaign %d" % number).hexdigest()


def freeze(snapshots: Snapshots, number: int, who: list[str], data_set: str = "chest") -> str:
    found = FrozenValues(patients=tuple(who))
    return snapshots.freeze(data_set, digest=digest(number), frozen_values=found, minimum_count=MINIMUM).sha256


def require(snapshots: Snapshots, number: int, who: list[str]) -> None:
    found = snapshots.of(digest(number))
    assert found is not None
    found.require(FrozenValues(patients=tuple(who)))


def test_the_same_patients_are_one_snapshot_in_any_order_and_after_a_restart(tmp_path: Path) -> None:
    first = freeze(Snapshots(tmp_path), 1, people(*range(20)))
    again = Snapshots(tmp_path)
    assert freeze(again, 2, people(*reversed(range(20)), 3, 3)) == first
    snapshot = again.of(digest(1))
    assert snapshot is not None
    assert snapshot.patients == tuple(sorted(people(*range(20))))
    assert again.of(digest(2)) == snapshot
    assert again.of(digest(3)) is None
    assert stat.S_IMODE((tmp_path / "snapshots.db").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("joined", "left", "allowed"),
    [(1, 0, False), (4, 0, False), (5, 0, True), (2, 2, False), (3, 2, True), (0, 5, True)],
)
def test_patients_who_joined_or_left_must_be_enough(tmp_path: Path, joined: int, left: int, allowed: bool) -> None:
    snapshots = Snapshots(tmp_path)
    freeze(snapshots, 1, people(*range(20)))
    second = people(*range(left, 20 + joined))
    if allowed:
        freeze(snapshots, 2, second)
    else:
        with pytest.raises(SnapshotTooClose) as refused:
            freeze(snapshots, 2, second)
        assert refused.value.rule == "snapshot-too-close"
        assert snapshots.of(digest(2)) is None
        said = str(refused.value) + refused.value.detail
        assert not any(person in said for person in second)
        assert digest(1)[:16] in said


def test_every_earlier_cohort_counts_not_only_the_last(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    freeze(snapshots, 1, people(*range(20)))
    freeze(snapshots, 2, people(*range(30)))
    with pytest.raises(SnapshotTooClose):
        freeze(snapshots, 3, people(*range(21)))
    with pytest.raises(SnapshotTooClose):
        freeze(snapshots, 3, people(*range(29)))
    freeze(snapshots, 3, people(*range(25)))


def test_patients_one_at_a_time_never_pass(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    freeze(snapshots, 0, people(*range(20)))
    for number in range(1, MINIMUM):
        with pytest.raises(SnapshotTooClose):
            freeze(snapshots, number, people(*range(20 + number)))
    freeze(snapshots, MINIMUM, people(*range(20 + MINIMUM)))


def test_another_data_set_is_no_way_around(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    freeze(snapshots, 1, people(*range(20)))
    with pytest.raises(SnapshotTooClose) as refused:
        freeze(snapshots, 2, people(*range(21)), "mammograms")
    assert refused.value.digest == digest(1)
    freeze(snapshots, 2, list(refused.value.patients), "mammograms")
    snapshot = snapshots.of(digest(2))
    assert snapshot is not None
    assert (snapshot.data_set, snapshot.patients) == ("mammograms", tuple(sorted(people(*range(20)))))


def test_a_campaign_answers_for_the_cohort_it_was_approved_for(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    freeze(snapshots, 1, people(*range(20)))
    require(snapshots, 1, people(*reversed(range(20))))
    with pytest.raises(SnapshotChanged, match="fedage site approve") as refused:
        require(snapshots, 1, people(*range(19)))
    assert refused.value.rule == "snapshot-changed"
    freeze(snapshots, 1, people(*range(40)))  # approved anew with more data: the later one counts
    require(snapshots, 1, people(*range(40)))
    with pytest.raises(SnapshotChanged):
        require(snapshots, 1, people(*range(20)))


@pytest.mark.parametrize(
    "who", [["Jane Roe"], ["12345678"], ["AB" * 32], ["ab" * 32, "ab" * 20], [7], ["ab" * 32 + "\n"]]
)
def test_only_keyed_hashes_are_kept(tmp_path: Path, who: list[str]) -> None:
    with pytest.raises(NoHash) as refused:
        freeze(Snapshots(tmp_path), 1, who)
    assert "Jane" not in str(refused.value)
    assert "1234" not in str(refused.value)


def test_random_cohorts_against_a_slow_rule(tmp_path: Path) -> None:
    chance = random.Random(5)
    snapshots = Snapshots(tmp_path)
    accepted: list[set[str]] = []
    outcomes = set()
    for number in range(80):
        base = set(chance.choice(accepted)) if accepted else set(people(*range(30)))
        for person in people(*chance.sample(range(40), chance.randint(0, 8))):
            base ^= {person}
        fits = base in accepted or all(len(base - other) + len(other - base) >= MINIMUM for other in accepted)
        outcomes.add(fits)
        try:
            freeze(snapshots, number, list(base))
        except SnapshotTooClose:
            assert not fits
        else:
            assert fits
            accepted.append(base)
    assert outcomes == {True, False}


def test_of_two_close_cohorts_at_once_one_is_frozen(tmp_path: Path) -> None:
    Snapshots(tmp_path).close()
    start, frozen = threading.Barrier(2), []

    def one(number: int) -> None:
        snapshots = Snapshots(tmp_path, lock_wait_s=60)
        start.wait()
        with contextlib.suppress(SnapshotTooClose):
            frozen.append(freeze(snapshots, number, people(*range(20 + number))))
        snapshots.close()

    threads = [threading.Thread(target=one, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(frozen) == 1


def test_a_locked_file_freezes_nothing(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path, lock_wait_s=0.1)
    other = sqlite3.connect(tmp_path / "snapshots.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(SnapshotsUnavailable, match="locked"):
        freeze(snapshots, 1, people(*range(20)))
    other.close()
    assert snapshots.of(digest(1)) is None


def test_cohorts_of_a_large_hospital_are_compared_quickly(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    everyone = people(*range(30_000))
    freeze(snapshots, 1, everyone)
    begin = time.perf_counter()
    with pytest.raises(SnapshotTooClose):
        freeze(snapshots, 2, everyone[1:])
    assert time.perf_counter() - begin < 2
