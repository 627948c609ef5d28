import os
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedage.server.campaign.strategies import FedAvg, RoundStart, Spool, Step, Update

WEIGHTS = {"w": np.array([1.0, 2.0], dtype=np.float32), "b": np.array([0.5], dtype=np.float32)}
SITES = tuple("abcdefg")


def update(site: str, value: float, n: int) -> Update:
    return Update(site=site, change={name: np.full_like(array, value) for name, array in WEIGHTS.items()}, n=n)


def averaged(folder: Path, updates: Sequence[Update]) -> Step:
    strategy = FedAvg(Spool(folder / "updates"))
    sending = strategy.configure(RoundStart(number=1, weights=WEIGHTS, sites=SITES))
    assert (sending.sites, sending.payload) == (SITES, {})
    for one in updates:
        strategy.accept(one)
    step = strategy.finish()
    assert not (folder / "updates").exists()
    return step


def test_updates_are_weighted_by_patients(tmp_path: Path) -> None:
    # (1·10 + 4·30) / 40 = 3.25 on every weight; the norm is 3.25·√3.
    step = averaged(tmp_path, [update("a", 1.0, 10), update("b", 4.0, 30)])
    np.testing.assert_allclose(step.weights["w"], [4.25, 5.25])
    np.testing.assert_allclose(step.weights["b"], [3.75])
    assert step.norm == pytest.approx(3.25 * 3**0.5)
    assert step.weights["w"].dtype == np.float32


def test_one_site_equals_its_own_model(tmp_path: Path) -> None:
    step = averaged(tmp_path, [update("a", 0.25, 7)])
    np.testing.assert_array_equal(step.weights["w"], WEIGHTS["w"] + np.float32(0.25))


def test_order_of_arrival_changes_no_bit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    updates = [
        Update(
            site=site,
            change={n: rng.normal(size=a.shape).astype(np.float32) for n, a in WEIGHTS.items()},
            n=int(rng.integers(1, 99)),
        )
        for site in "gcafbed"
    ]
    steps = [averaged(tmp_path, order) for order in (updates, updates[::-1], updates[3:] + updates[:3])]
    total = sum(one.n for one in updates)
    for name, before in WEIGHTS.items():
        ordered = sorted(updates, key=lambda one: one.site)
        slow = before + sum(one.n * one.change[name].astype(np.float64) for one in ordered) / total
        np.testing.assert_array_equal(steps[0].weights[name], slow.astype(np.float32))
        assert len({step.weights[name].tobytes() for step in steps}) == 1


def test_a_round_that_was_not_finished_leaves_nothing_in_the_next(tmp_path: Path) -> None:
    strategy = FedAvg(Spool(tmp_path / "updates"))
    start = RoundStart(number=1, weights=WEIGHTS, sites=SITES)
    strategy.configure(start)
    strategy.accept(update("a", 100.0, 10))
    # Another process may have been killed in its round: what it left on disk is not this round's either.
    again = FedAvg(Spool(tmp_path / "updates"))
    again.configure(start)
    again.accept(update("b", 1.0, 10))
    np.testing.assert_allclose(again.finish().weights["w"], [2.0, 3.0])


def test_memory_does_not_grow_with_the_sites(tmp_path: Path) -> None:
    size, sites = 250_000, 16
    weights = {f"layer {k}": np.zeros(size, dtype=np.float32) for k in range(4)}
    strategy = FedAvg(Spool(tmp_path / "updates"))
    strategy.configure(RoundStart(number=1, weights=weights, sites=SITES))
    model_bytes = 4 * 4 * size
    tracemalloc.start()
    try:
        for site in range(sites):
            change = {name: np.full(size, site, dtype=np.float32) for name in weights}
            strategy.accept(Update(site=f"s{site:02}", change=change, n=1))
            del change
        step = strategy.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    np.testing.assert_allclose(step.weights["layer 3"], (sites - 1) / 2)
    assert peak < 5 * model_bytes


def test_a_site_has_one_update_a_round(tmp_path: Path) -> None:
    strategy = FedAvg(Spool(tmp_path / "updates"))
    strategy.configure(RoundStart(number=1, weights=WEIGHTS, sites=SITES))
    strategy.accept(update("a", 1.0, 10))
    with pytest.raises(ValueError, match="has an update of a already"):
        strategy.accept(update("a", 2.0, 10))


@pytest.mark.parametrize("name", ["../north", "a b/c", "Krankenhaus Süd", "x" * 200])
def test_updates_wait_in_a_folder_of_the_coordinators_own_whatever_a_site_is_called(tmp_path: Path, name: str) -> None:
    spool = Spool(tmp_path / "updates")
    spool.add(update(name, 1.0, 3))
    assert (tmp_path / "updates").stat().st_mode & 0o777 == 0o700
    assert [file.name for file in (tmp_path / "updates").iterdir()] == ["0.update"]
    assert [(one.site, one.n) for one in spool.updates()] == [(name, 3)]


@pytest.mark.parametrize(
    "shapes",
    [{"w": (3,)}, {"w": (2, 5, 7), "b": ()}, {"large": (2 * 32768 + 1,)}, {"exact": (32768,), "none": (0, 3)}],
    ids=["one block", "several and a scalar", "more blocks", "a whole block and an empty array"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_updates_are_added_as_numpy_adds_them_whole(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], dtype: type[np.floating]
) -> None:
    rng, spool = np.random.default_rng(1), Spool(tmp_path / "updates")
    updates = [
        Update(site=site, n=n, change={name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()})
        for site, n in (("c", 7), ("a", 80), ("b", 3))
    ]
    for one in updates:
        # A view with steps, as an array out of a message may be.
        spool.add(replace(one, change={name: np.stack([array] * 2, -1)[..., 0] for name, array in one.change.items()}))
    for name, shape in shapes.items():
        whole = np.zeros(shape)
        for one in sorted(updates, key=lambda one: one.site):
            whole += one.n * one.change[name].astype(np.float64)
        assert spool.add_up(name, spool.patients()).tobytes() == whole.tobytes()
        assert [array.tobytes() for _, array in spool.arrays(name)] == [
            one.change[name].tobytes() for one in sorted(updates, key=lambda one: one.site)
        ]
    assert [one.site for one in spool.updates()] == ["a", "b", "c"]


def test_an_update_that_was_cut_off_is_not_read_as_a_shorter_one(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "updates")
    spool.add(update("a", 1.0, 3))
    (file,) = spool.folder.iterdir()
    os.truncate(file, file.stat().st_size - 1)
    for read in (lambda: spool.add_up("b", {"a": 3}), lambda: list(spool.arrays("b")), lambda: list(spool.updates())):
        with pytest.raises(OSError, match="shorter than it was written"):
            read()
