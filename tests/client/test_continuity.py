"""A site's account of a run's models: the first follows from the file, later ones move little, and a restart forgets
nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from fedage.client.site.durable import StoreUnavailable
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.protocol.basis import PreparedSums
from fedage.common.protocol.messages import EVALUATE, TRAIN, join_iterates, join_model, model_of
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.attacks.table_attacker import FEATURES, Attacker
from tests.client.hospital import CAMPAIGN, VALIDATION, Hospital, Template, refused
from tests.machinery import InProcessGrid, MemorySite, table_site
from tests.of_estimators import preparation

Weights = dict[str, np.ndarray]
LONG = CAMPAIGN.replace("rounds = 2", "rounds = 9\nmax_step_norm = 0.5\nmax_path_norm = 2.0")


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    found = template.copy(tmp_path, approved=False)
    found.campaign = parse_campaign(LONG)
    found.site.rules.approve(found.campaign)
    return found


def moved(weights: Weights, norm: float, *, seed: int = 0) -> Weights:
    """A model at this distance, in a random direction."""
    chance = np.random.default_rng(seed)
    steps = {name: chance.normal(size=array.shape) for name, array in weights.items()}
    length = np.sqrt(sum(float(np.sum(step**2)) for step in steps.values()))
    return {name: (array + steps[name] * (norm / length)).astype(np.float32) for name, array in weights.items()}


def send(hospital: Hospital, weights: Weights, *, kind: str = TRAIN, **about: Any) -> tuple[Any, Weights]:
    payload = {**join_model(weights), **join_iterates({VALIDATION: {}})}
    return hospital.send(hospital.request(kind, **about), payload)


def test_a_restarted_agent_keeps_the_rule(hospital: Hospital) -> None:
    first = hospital.weights()
    assert send(hospital, first, round=1)[0].status == "ok"
    for number in (2, 3):
        hospital.start()
        assert refused(send(hospital, moved(first, 0.51 * (number - 1)), round=number)[0], hospital) == "model-step"
    assert send(hospital, moved(first, 0.49), round=2)[0].status == "ok"
    hospital.start()
    assert refused(send(hospital, moved(first, 0.45), round=2)[0], hospital) == "another-model"
    assert send(hospital, moved(first, 0.49), round=2)[0].status == "ok"
    assert send(hospital, first, round=1)[0].status == "ok"  # as it was answered before


@pytest.mark.parametrize("number", [2, 3, 4])
def test_a_site_that_missed_rounds_allows_their_steps_and_no_more(hospital: Hospital, number: int) -> None:
    first = hospital.weights()
    far = moved(first, 0.5 * (number - 1) * 1.01)
    assert refused(send(hospital, far, round=number)[0], hospital) == "model-step"
    assert send(hospital, moved(first, 0.5 * (number - 1) * 0.99), round=number)[0].status == "ok"
    back = send(hospital, first, round=number - 1)[0]
    assert refused(back, hospital) == "model-step"


@pytest.mark.parametrize(
    "line", ["max_step_norm = 50.1", "max_step_norm = 500.0", "max_path_norm = 200.1", "max_path_norm = 1e5"]
)
def test_a_site_answers_no_file_with_bounds_above_the_estimators(template: Template, tmp_path: Path, line: str) -> None:
    """Whatever the coordinator checked, and even where an earlier release approved the file."""
    hospital = template.copy(tmp_path, approved=False)
    text = CAMPAIGN.replace("rounds = 2", f"rounds = 2\n{line}")
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert refused(hospital.ask(digest=digest, campaign=text), hospital) == "not-approved"
    with pytest.raises(CampaignErrors, match=line.partition(" ")[0]):
        hospital.site.rules.approvals.approve(text)
    folder = hospital.home / "approved"
    folder.mkdir(exist_ok=True)
    (folder / f"{digest}.toml").write_text(text)
    payload = {**join_model(hospital.weights()), **join_iterates({VALIDATION: {}})}
    reply, arrays = hospital.send(hospital.request(TRAIN, digest=digest, round=1), payload)
    assert refused(reply, hospital) == "not-approved"
    assert arrays == {}


def test_the_path_of_a_run_is_bounded_whatever_its_rounds(hospital: Hospital) -> None:
    first, there = hospital.weights(), moved(hospital.weights(), 0.45)
    rules = [send(hospital, there if number % 2 == 0 else first, round=number)[0].rule for number in range(1, 7)]
    assert rules == ["", "", "", "", "", "model-path"]
    assert send(hospital, first, round=1, run="r2")[0].status == "ok"


@pytest.mark.parametrize("kind", [TRAIN, EVALUATE])
@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda first: moved(first, 1e-2), "first-model"),
        (lambda first: {name: np.zeros_like(array) for name, array in first.items()}, "first-model"),
        (lambda first: {name: array.astype(np.float64) * (1 + 1e-3) for name, array in first.items()}, "first-model"),
        (lambda first: {name: array.ravel() for name, array in first.items()}, "model"),
        (lambda first: dict(list(first.items())[1:]), "model"),
    ],
)
def test_no_kind_of_message_brings_another_first_model(
    hospital: Hospital, kind: str, make: Callable[[Weights], Weights], rule: str
) -> None:
    about = {"round": 1} if kind == TRAIN else {}
    reply, arrays = send(hospital, make(hospital.weights()), kind=kind, **about)
    if kind == TRAIN or rule == "model":
        assert refused(reply, hospital) == rule
        assert arrays == {}
    far, arrays = send(hospital, moved(hospital.weights(), 2.05), kind=EVALUATE, run="r2")
    assert refused(far, hospital) == "model-path"
    assert arrays == {}


def test_the_last_bits_of_another_processor_are_no_other_model(hospital: Hospital) -> None:
    near = {name: np.nextafter(array, np.float32(9)) for name, array in hospital.weights().items()}
    assert send(hospital, near, round=1)[0].status == "ok"


def test_after_its_evaluation_a_run_trains_no_more(hospital: Hospital) -> None:
    assert send(hospital, hospital.weights(), kind=EVALUATE)[0].status == "ok"
    assert refused(send(hospital, hospital.weights(), round=1)[0], hospital) == "model-step"


def test_a_damaged_account_answers_nothing(hospital: Hospital) -> None:
    assert send(hospital, hospital.weights(), round=1)[0].status == "ok"
    (account,) = (hospital.home / "state").rglob("model-*.safetensors")
    for spoilt in (b"", b"\x00" * 64, account.read_bytes()[:-100], account.read_bytes().replace(b"rounds", b"sdnuor")):
        account.write_bytes(spoilt)
        with pytest.raises(StoreUnavailable, match="model-"):
            send(hospital, moved(hospital.weights(), 0.1), round=2)


def test_an_update_is_clipped_at_the_site(template: Template, tmp_path: Path) -> None:
    hospital = template.copy(tmp_path, approved=False)
    norms = []
    for bound in (0.001, 0.01, 50.0):
        hospital.campaign = parse_campaign(CAMPAIGN.replace("rounds = 2", f"rounds = 2\nmax_step_norm = {bound}"))
        hospital.site.rules.approve(hospital.campaign)
        reply, arrays = hospital.send(hospital.request(TRAIN, round=1))
        assert reply.status == "ok"
        norms.append(float(np.sqrt(sum(np.sum(a.astype(np.float64) ** 2) for a in model_of(arrays).values()))))
        assert reply.info["clipped"] is (bound < 1)
    assert norms[:2] == pytest.approx([0.001, 0.01], rel=1e-5)
    assert norms[2] > 0.01


# Tables: the first model is the solution of the sums that come with it.


def sums_of(attacker: Attacker) -> PreparedSums:
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    return attacker.crafted_sums(x.mean(axis=0), x.std(axis=0))


def with_block(attacker: Attacker, name: str, change: Callable[[np.ndarray], Any]) -> PreparedSums:
    sums = sums_of(attacker)
    analysis = preparation(attacker.campaign, attacker.names)
    assert analysis is not None
    layout, total = analysis.layout(sums.iterate), np.array(sums.total)
    layout.block(total, name)[...] = change(layout.block(total, name))
    return replace(sums, total=total)


def test_a_tables_first_model_is_solved_at_the_site(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    sums = sums_of(attacker)
    first = attacker.first(sums)
    assert attacker.send(first, run="without", round_number=1)[0].rule == "first-model"
    for name in first:
        other = {**first, name: first[name] + np.float32(1e-2)}
        reply, update, _ = attacker.send(other, run=f"run-{len(name)}-{name[:3]}", round_number=1, sums=sums)
        assert (reply.rule, update) == ("first-model", {}), name
    assert attacker.send(first, run="honest", round_number=1, sums=sums)[0].status == "ok"
    for name in ("medians", "means", "units", "coefficients", "intercept", "age_sd", "noise"):
        other = {**first, name: np.nextafter(first[name], np.float32(9))}
        assert attacker.send(other, run="honest", round_number=2)[0].rule == "fixed-arrays"
    assert attacker.send(first, run="honest", round_number=2)[0].status == "ok"


SUMS = {
    "a patient and a half": ("n", lambda n: n + 0.5),
    "nobody": ("n", lambda n: n * 0),
    "more patients than there are": ("n", lambda _: 2e7),
    "a negative variance": ("uu", lambda uu: -uu),
    "one variance less than its mean squared": ("uu", lambda uu: uu * (np.arange(uu.size) > 0)),
    "products beyond Cauchy and Schwarz": ("ut", lambda ut: ut + 1e9),
    "an age of 500": ("t", lambda t: t * 10),
    "ages that vary more than they can": ("tt", lambda tt: tt * 20),
    "ages that vary less than not at all": ("tt", lambda tt: tt * 0.1),
    "not a number": ("u", lambda u: u * np.nan),
    "beyond the layout": ("u", lambda u: u + 1e14),
}


@pytest.mark.parametrize("kind", SUMS)
def test_sums_that_no_patients_have_give_no_model(tmp_path: Path, kind: str) -> None:
    attacker = Attacker(tmp_path)
    name, change = SUMS[kind]
    honest = attacker.first(sums_of(attacker))
    reply, update, _ = attacker.send(
        honest, run=attacker.new_run(), round_number=1, sums=with_block(attacker, name, change)
    )
    assert (reply.rule, update) == ("first-model", {})
    assert "sums that came with the model" in reply.reason


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 20.0), (15.0, 1.0), (-15.0, 1.0), (1e6, 1.0), (0.0, 1e4)])
def test_a_standardisation_that_makes_a_threshold_is_refused(tmp_path: Path, shift: float, stretch: float) -> None:
    attacker = Attacker(tmp_path)
    assert attacker.site.found.samples is not None
    x = attacker.site.found.samples["row"]
    means, sds = x.mean(axis=0), x.std(axis=0)
    means[0], sds[0] = means[0] + shift * sds[0], sds[0] / stretch
    sums = attacker.crafted_sums(means, sds)
    # Of features so far out no network is made: there the site is sent another one with the sums.
    model = attacker.first(sums if shift < 1e6 else sums_of(attacker))
    reply, update, _ = attacker.send(model, run="r1", round_number=1, sums=sums)
    assert reply.rule in ("model-standard", "first-model")
    assert update == {}


def test_a_median_that_marks_who_misses_a_value_is_refused(tmp_path: Path) -> None:
    attacker = Attacker(tmp_path)
    honest = sums_of(attacker)
    for far in (11.0, -40.0, 1e3):
        centre = np.zeros(FEATURES)
        centre[0] = far * 5
        # The same patients, summed around another centre: Σ(x − c), and Σ(x − c)(x − c)ᵀ.
        means = attacker.site.found.samples["row"].mean(axis=0) - centre  # type: ignore[index]
        sds = attacker.site.found.samples["row"].std(axis=0)  # type: ignore[index]
        moved_sums = attacker.crafted_sums(means, sds)
        sums = PreparedSums(iterate={**honest.iterate, "centre": centre}, total=moved_sums.total)
        reply, update, _ = attacker.send(attacker.first(sums), run=attacker.new_run(), round_number=1, sums=sums)
        assert (reply.rule, update) == ("model-standard", {})


TABLE = """
[campaign]
name = "missed"
purpose = "Have a site miss the first round"
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
rounds = 4
batch_size = 16
quorum = 2
round_deadline_s = 1
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
[privacy]
minimum_count = 5
"""


def tables(folder: Path) -> list[MemorySite]:
    made = []
    for number, name in enumerate("abc"):
        chance = np.random.default_rng(number)
        age = chance.uniform(20, 80, 80)
        x = chance.normal(size=(80, FEATURES)) + age[:, None] / 30
        made.append(table_site(name, folder, x=x, age=age, seed=number))
    return made


@pytest.mark.parametrize("missed", [{1}, {1, 2}, {3}])
def test_a_table_site_that_misses_rounds_is_sent_the_sums_with_the_next(tmp_path: Path, missed: set[int]) -> None:
    def meddle(message: Message, node: int) -> Message | None:
        about = message.content.config_records["request"]
        absent = about["kind"] == TRAIN and int(str(about["round"])) in missed and node == 2
        return None if absent else message

    grid = InProcessGrid(tables(tmp_path / "sites"), meddle=meddle)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(TABLE), place, key=None, admitted=grid.names)
    results = read_results(tmp_path / "run" / "results.json")
    assert results.run.status == "finished"
    for done in results.rounds:
        assert done.sites == (("a", "c") if done.number in missed else ("a", "b", "c"))
    rules = {json.loads(line).get("rule") for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()}
    assert rules <= {None, ""}


def test_a_site_that_does_not_train_works_the_model_out_when_it_evaluates(tmp_path: Path) -> None:
    def meddle(message: Message, node: int) -> Message | None:
        trains = message.content.config_records["request"]["kind"] == TRAIN
        return None if trains and node == 3 else message

    grid = InProcessGrid(tables(tmp_path / "sites"), meddle=meddle)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(TABLE), place, key=None, admitted=grid.names)
    results = read_results(tmp_path / "run" / "results.json")
    assert set(evaluation_results.evaluation(results).test.raw.by_site) == {"a", "b", "c"}


def test_a_path_that_is_used_up_stops_the_model_and_the_record_says_so(tmp_path: Path) -> None:
    """The server stays within what its sites will answer: no site refuses, and the note tells that it was clipped."""
    text = TABLE.replace("rounds = 4", "rounds = 4\nmax_step_norm = 0.02\nmax_path_norm = 0.03")
    grid = InProcessGrid(tables(tmp_path / "sites"))
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    results = read_results(tmp_path / "run" / "results.json")
    assert results.run.status == "finished"
    assert all(done.sites == ("a", "b", "c") for done in results.rounds)
    assert any("clipped" in note and "max_path_norm" in note for note in results.notes)
    assert all("clipped" in trouble for site in results.sites for trouble in site.troubles)
