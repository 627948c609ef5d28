"""A site whose updates are made to decide or to spoil the model: each is set aside by its rule, the run goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.common.protocol.messages import DESCRIBE, MODEL_PREFIX, TRAIN
from fedage.server.campaign.strategies import Update, UpdateRefused, check_update
from fedage.server.record.events import read_events
from tests.attacks.hostile_site import Info, Outcome, Payload, of_model, run
from tests.machinery import MemorySite, table_site

FILE = """
[campaign]
name = "hostile-site"
purpose = "Train a table's model beside a site that lies"
seed = 7
sites = ["a", "b", "c"]
wait_s = 1
[table]
age = "age"
[estimator]
name = "table-mlp"
[estimator.options]
features = ["*"]
penalty = 10.0
hidden = [8]
[training]
rounds = 2
batch_size = 16
optimiser = "sgd"
learning_rate = 0.05
quorum = 2
round_deadline_s = 1
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
[privacy]
minimum_count = 5
"""
PARAMETER = f"{MODEL_PREFIX}correction.0.weight"
FIXED = f"{MODEL_PREFIX}coefficients"


def members(folder: Path) -> list[MemorySite]:
    made = []
    for number, name in enumerate("abc"):
        chance = np.random.default_rng(number)
        age = chance.uniform(20, 80, 80)
        x = chance.normal(size=(80, 4)) + age[:, None] / 30
        made.append(table_site(name, folder / "sites", x=x, age=age, seed=number))
    return made


ROUNDS = 2
LONG = FILE.replace("rounds = 2", f"rounds = {ROUNDS}")
"""A run in which the site tries another update in each round; after three that fail it would rest."""


@pytest.fixture(scope="module")
def without_b(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The model that the other two sites make, as if b's updates were never sent."""
    folder = tmp_path_factory.mktemp("without")

    def silent(kind: str, payload: Payload, info: Info) -> None:
        if kind == TRAIN:
            for name in [name for name in payload if name.startswith(MODEL_PREFIX)]:
                del payload[name]

    return load_file(run(folder, members(folder), LONG, silent).folder / "model.safetensors")


def put(name: str, value: Callable[[Any], Any]) -> Callable[[Payload], None]:
    def alter(payload: Payload) -> None:
        payload[name] = value(payload[name])

    return alter


def without(name: str) -> Callable[[Payload], None]:
    def alter(payload: Payload) -> None:
        del payload[name]

    return alter


def one_value(value: float, dtype: type = np.float32) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        changed = array.astype(dtype)
        changed.flat[0] = value
        return changed

    return change


UPDATES: dict[str, tuple[Callable[[Payload], None], str]] = {
    "times 1000": (of_model(lambda a: a * 1000), "update-norm"),
    "times -1000": (of_model(lambda a: a * -1000), "update-norm"),
    "just beyond the bound": (put(PARAMETER, one_value(1.01)), "update-norm"),
    "largest float32": (put(PARAMETER, one_value(3e38)), "update-norm"),
    "all at 3e38": (of_model(lambda a: np.full_like(a, 3e38)), "update-norm"),
    "float64 beyond float32": (put(PARAMETER, one_value(1e300, np.float64)), "update-not-finite"),
    "float64 just beyond float32": (put(PARAMETER, one_value(3.5e38, np.float64)), "update-not-finite"),
    "bool": (of_model(lambda a: np.ones(a.shape, dtype=bool)), "update-type"),
    "int64": (of_model(lambda a: np.ones(a.shape, dtype=np.int64)), "update-type"),
    "uint8": (put(PARAMETER, lambda a: a.astype(np.uint8)), "update-type"),
    "nan": (put(PARAMETER, one_value(np.nan)), "update-not-finite"),
    "minus infinity": (put(PARAMETER, one_value(-np.inf)), "update-not-finite"),
    "infinity in float16": (put(PARAMETER, one_value(np.inf, np.float16)), "update-not-finite"),
    "transposed": (put(PARAMETER, lambda a: np.ascontiguousarray(a.T)), "update-arrays"),
    "flattened": (put(PARAMETER, lambda a: a.ravel()), "update-arrays"),
    "scalar": (put(PARAMETER, lambda _: np.float32(0).reshape(())), "update-arrays"),
    "one missing": (without(PARAMETER), "update-arrays"),
    "one more": (lambda payload: payload.update({f"{MODEL_PREFIX}more": np.zeros(2)}), "update-arrays"),
    "a fixed array": (put(FIXED, lambda a: a + np.float32(1e-3)), "fixed-arrays"),
    "a fixed array by a little": (put(f"{MODEL_PREFIX}units", lambda a: a + np.float32(1e-6)), "fixed-arrays"),
}


class Attacks:
    """The runs in which all of `UPDATES` are tried, one a round; each run is made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[int, Outcome] = {}

    def __call__(self, kind: str) -> tuple[Outcome, int]:
        """The run with this kind of update, and its round."""
        first, place = divmod(list(UPDATES).index(kind), ROUNDS)
        if first not in self._runs:
            tried = iter(list(UPDATES.values())[first * ROUNDS : (first + 1) * ROUNDS])

            def alter(sent: str, payload: Payload, _info: Info) -> None:
                if sent == TRAIN:
                    next(tried)[0](payload)

            folder = self._folder / str(first)
            self._runs[first] = run(folder, members(folder), LONG, alter)
            assert list(tried) == []
        return self._runs[first], place + 1


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Attacks:
    return Attacks(tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("kind", UPDATES)
def test_an_update_that_breaks_a_rule_counts_nothing(kind: str, attacks: Attacks, without_b: dict[str, Any]) -> None:
    rule = UPDATES[kind][1]
    found, number = attacks(kind)
    assert found.results.run.status == "finished"
    assert [done.sites for done in found.results.rounds if done.number == number] == [("a", "c")]
    events = read_events(found.folder / "events.jsonl")
    (trouble,) = (one for one in events if (one["event"], one.get("round")) == ("site-trouble", number))
    assert (trouble["site"], trouble["rule"]) == ("b", rule)
    assert "update set aside" in str(trouble["reason"])
    assert any(rule in told and "update set aside" in told for told in found.hostile.troubles)
    model = load_file(found.folder / "model.safetensors")
    assert all(np.array_equal(model[name], array) for name, array in without_b.items())


def test_complex_numbers_are_no_update(tmp_path: Path) -> None:
    """Those do not even travel in a payload; in memory they are refused like other types."""
    weights = {"w": np.zeros(3, dtype=np.float32)}
    for dtype in (np.complex64, np.complex128, np.dtype("datetime64[s]"), np.object_):
        with pytest.raises(UpdateRefused) as refused:
            check_update(Update(site="a", change={"w": np.zeros(3, dtype=dtype)}, n=5), weights, patients=10)
        assert refused.value.rule == "update-type"


RULE = "update-patients"


@pytest.mark.parametrize(
    ("patients", "rule"),
    [
        (81, "update-patients"),
        (10**8, "update-patients"),
        (2**31, ""),
        (0, "update-patients"),
        (10**7, "update-patients"),
    ],
)
def test_an_update_weighs_no_more_than_the_patients_described(tmp_path: Path, patients: int, rule: str) -> None:
    def alter(kind: str, _payload: Payload, info: Info) -> None:
        if kind == TRAIN:
            info["n"] = patients

    found = run(tmp_path, members(tmp_path), FILE, alter)
    assert found.results.run.status == "finished"
    assert all(done.sites == ("a", "c") for done in found.results.rounds)
    assert any("patient" in trouble or "n is not of its form" in trouble for trouble in found.hostile.troubles)
    assert not rule or rule in found.rules


@pytest.mark.parametrize("described", [10**8, 10**7 + 1, 2**40, None, -1])
def test_a_site_that_describes_what_no_site_has_takes_no_part(tmp_path: Path, described: int | None) -> None:
    def alter(kind: str, _payload: Payload, info: Info) -> None:
        if kind == DESCRIBE:
            info["patients"] = described

    found = run(tmp_path, members(tmp_path), FILE, alter)
    assert found.results.run.status == "finished"
    assert found.hostile.status == "refused"
    assert all(done.sites == ("a", "c") for done in found.results.rounds)


def test_a_site_that_decides_the_model_is_named(tmp_path: Path) -> None:
    """A large registry and a site that claims to be one look the same: whoever reads the results has to judge."""

    def alter(kind: str, _payload: Payload, info: Info) -> None:
        if kind == DESCRIBE:
            info["patients"] = 9_000_000
        if kind == TRAIN:
            info["n"] = 8_999_999

    found = run(tmp_path, members(tmp_path), FILE, alter)
    assert any("decides the model" in trouble for trouble in found.hostile.troubles)
    assert not any(site.troubles for site in found.results.sites if site.name != "b")


def test_an_honest_site_is_not_clipped_and_not_named(tmp_path: Path) -> None:
    found = run(tmp_path, members(tmp_path), FILE, lambda *_: None)
    assert all(done.sites == ("a", "b", "c") for done in found.results.rounds)
    assert not any(site.troubles for site in found.results.sites)
    assert found.rules == set()
