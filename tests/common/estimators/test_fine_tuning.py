"""Fine-tuning a model of age: what is learnt from, what a phase begins with, each choice, and campaigns that learn."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from safetensors.numpy import load_file

from fedage.client.compute.model import targets_of
from fedage.client.compute.training import train_locally
from fedage.client.disclosure.guard import Withheld
from fedage.common.analyses.survival.risk_discrimination import RiskDiscrimination
from fedage.common.bundle.container import BundleRefused, write_bundle
from fedage.common.bundle.fits import require_campaign
from fedage.common.campaign.types import Training
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch
from fedage.common.estimators.derive import NoFirstModel, model_before
from fedage.common.networks.arrays import ModelRefused, outline
from fedage.common.protocol.basis import Basis
from fedage.common.statistics.cohort import Cohort
from fedage.server.campaign.bundles import BUNDLE
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import Results, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.common.estimators.planted_outcomes import TINY, auc, columns_of, sites, text, views_of
from tests.machinery import InProcessGrid, MemorySite
from tests.of_bundles import described
from tests.plugins.test_in_process import error_of

RISK = {**TINY, "outcome": "risk"}
DIAGNOSIS = {**TINY, "outcome": "diagnosis", "outcome_column": "cancer"}
SCORE = {**TINY, "outcome": "score", "outcome_column": "score", "score_range": [0.0, 30.0]}
KEY = Ed25519PrivateKey.generate()


def batch(options: dict[str, Any], *, count: int = 12) -> Batch:
    columns = columns_of(count, 3)
    estimator = make("breast-outcome", options)
    targets = targets_of(estimator, Cohort(columns), np.arange(count), minimum_count=1)
    views = views_of(columns, 4)
    return Batch(
        {name: torch.from_numpy(views[name]) for name in views.arrays},
        {name: torch.ones(count, dtype=torch.bool) for name in views.arrays},
        {name: torch.from_numpy(column.astype(np.float32)) for name, column in targets.items()},
    )


def loss_of(options: dict[str, Any], *, seed: int = 0) -> float:
    phase = make("breast-outcome", options).phases[-1]
    module = phase.build(seed=seed).train()
    torch.manual_seed(0)
    given = phase.training_batch(batch(options), generator=torch.Generator().manual_seed(3))
    return float(phase.loss(phase.output(module, given), given).detach())


# --- what it is ---


def test_the_head_is_the_published_one() -> None:
    module = outline(lambda: make("breast-outcome", {"outcome": "risk"}).phases[1].build(seed=0))
    assert sum(p.numel() for p in module.head.parameters()) == 1_639_814
    assert sum(p.numel() for p in module.age.parameters()) == 17_090_060


@pytest.mark.parametrize(
    ("options", "columns", "predicted"),
    [
        (RISK, ("time_years", "event"), [f"risk_{y}_year{'s' * (y > 1)}" for y in range(1, 6)]),
        (DIAGNOSIS, ("cancer",), ["outcome_probability"]),
        (SCORE, ("score",), ["predicted_score"]),
    ],
)
def test_each_outcome_states_what_it_reads_and_predicts(options, columns, predicted) -> None:
    estimator = make("breast-outcome", options)
    assert tuple(target.column for target in estimator.targets) == ("age_years", *columns)
    assert [output.column for output in estimator.outputs] == ["predicted_years", *predicted]
    assert parse_campaign(text("breast-outcome", options)).predicted_columns == ("predicted_years", *predicted)
    made = estimator.predictor(estimator.phases[1].start(estimator.phases[0].start({}, seed=1), seed=1), device="cpu")
    found = made(views_of(columns_of(5, 0), 0))
    assert set(found) == {"predicted_years", *predicted}
    assert all(values.shape == (5,) and np.isfinite(values).all() for values in found.values())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**TINY, "outcome": "stage"}, "outcome"),
        ({**TINY, "outcome": "score"}, "score_range must be there"),
        ({**RISK, "score_range": [0, 1]}, "score_range has no effect"),
        ({**SCORE, "score_range": [3, 3]}, "the smaller one first"),
        ({**SCORE, "score_range": [0, float("inf")]}, "finite"),
        ({**DIAGNOSIS, "risk_form": "additive-hazard"}, "risk_form has no effect"),
        ({**RISK, "years_after_event": False}, "additive-hazard"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said) -> None:
    with pytest.raises(ValidationError, match=said):
        make("breast-outcome", options)


@pytest.mark.parametrize(
    ("base", "change"),
    [
        (RISK, {"risk_form": "additive-hazard"}),
        (RISK, {"age_weight": 0.0}),
        (RISK, {"age_weight": 0.0, "frozen": True}),
        (RISK, {"head_width": 64}),
        (RISK, {"head_dropout": 0.5}),
        (RISK, {"outcome": "diagnosis", "outcome_column": "cancer"}),
        ({**RISK, "risk_form": "additive-hazard"}, {"years_after_event": False}),
        (SCORE, {"score_range": [0.0, 60.0]}),
    ],
)
def test_each_choice_changes_what_is_learnt(base, change) -> None:
    assert abs(loss_of(base) - loss_of({**base, **change})) > 1e-4


def test_a_frozen_network_of_age_gets_no_gradient_and_keeps_its_running_statistics() -> None:
    for frozen in (True, False):
        phase = make("breast-outcome", {**RISK, "frozen": frozen}).phases[-1]
        module = phase.build(seed=0).train()
        before = {name: value.clone() for name, value in module.age.state_dict().items()}
        given = phase.training_batch(batch(RISK), generator=torch.Generator().manual_seed(3))
        phase.loss(phase.output(module, given), given).backward()
        moved = any(not torch.equal(before[name], value) for name, value in module.age.state_dict().items())
        assert moved == (not frozen)
        assert any(p.grad is not None for p in module.age.parameters()) == (not frozen)
        assert all(p.grad is not None for p in module.head.parameters())


def test_a_missing_view_changes_nothing_by_what_lies_there() -> None:
    options = {**RISK, "local_path": True, "local_channels": 8, "local_blocks": 1, "draws": 2}
    phase = make("breast-outcome", options).phases[-1]
    module = phase.build(seed=0).eval()
    given = batch(options)
    given.present["L-CC"][1:3] = False
    with torch.inference_mode():
        first = phase.output(module, given)["outcome"]
        given.inputs["L-CC"][1:3] = 1e6
        assert torch.equal(first, phase.output(module, given)["outcome"])
        given.inputs["L-CC"][0] += 1.0
        assert not torch.equal(first[0], phase.output(module, given)["outcome"][0])


# --- what it begins with ---


def test_the_phase_begins_with_the_model_of_age_and_a_new_head() -> None:
    first, then = make("breast-outcome", RISK).phases
    age = first.start({}, seed=5)
    begun = then.start(age, seed=5)
    assert all(np.array_equal(begun[f"age.{name}"], array) for name, array in age.items())
    again, other = then.start(age, seed=5), then.start(age, seed=6)
    assert all(np.array_equal(begun[name], again[name]) for name in begun)
    assert not np.array_equal(begun["head.1.weight"], other["head.1.weight"])
    with pytest.raises(ModelRefused):
        then.start({**age, "more": np.zeros(1, np.float32)}, seed=5)
    with pytest.raises(ModelRefused):
        then.start(make("brain-sfcn", {"shape": [32] * 3, "poolings": 3}).phases[0].start({}, seed=5), seed=5)


def bundle(**changes: Any) -> tuple[bytes, dict[str, np.ndarray]]:
    estimator = make("breast-4view", {**TINY, **changes})
    model = estimator.phases[0].start({}, seed=9)
    return write_bundle(described("breast-4view", {**TINY, **changes}, model), model, key=KEY), model


def with_bundle(content: bytes, options: dict[str, Any], **more: Any) -> str:
    training = f'start_bundle = "{hashlib.sha256(content).hexdigest()}"'
    return text("breast-outcome", {**options, "age_first": False}, training=training, **more)


def test_rounds_may_begin_with_a_bundle_of_the_model_of_age() -> None:
    content, model = bundle()
    campaign = parse_campaign(with_bundle(content, RISK))
    begun = model_before(campaign, (), fold=0, phase=0, basis=Basis(given=model))
    assert all(np.array_equal(begun[f"age.{name}"], array) for name, array in model.items())
    assert set(begun) - {f"age.{name}" for name in model} == {
        f"head.{k}.{x}" for k in (1, 4, 7) for x in ("weight", "bias")
    }


@pytest.mark.parametrize(
    "crafted",
    [
        lambda model: {name: 1000 * array for name, array in model.items()},
        lambda model: {name: array for name, array in model.items() if "exam_head" not in name},
        lambda model: {**model, "latent.weight": model["latent.weight"][:-1]},
        lambda model: {name: np.full_like(array, np.nan) for name, array in model.items()},
    ],
)
def test_a_crafted_model_of_age_is_not_begun_with(crafted) -> None:
    content, model = bundle()
    campaign = parse_campaign(with_bundle(content, RISK))
    with pytest.raises(NoFirstModel):
        model_before(campaign, (), fold=0, phase=0, basis=Basis(given=crafted(model)))


def test_a_bundle_of_other_options_or_of_another_estimator_is_refused() -> None:
    from fedage.common.bundle.container import read_bundle

    content, model = bundle()
    campaign = parse_campaign(with_bundle(content, RISK))
    require_campaign(read_bundle(content).description, campaign)
    other, _ = bundle(age_max_years=80)
    with pytest.raises(BundleRefused, match="other options"):
        require_campaign(read_bundle(other).description, campaign)
    estimator = make("breast-outcome", RISK)
    finished = estimator.phases[1].start(model, seed=0)
    own = write_bundle(described("breast-outcome", RISK, finished), finished, key=KEY)
    with pytest.raises(BundleRefused, match="begins with breast-4view"):
        require_campaign(read_bundle(own).description, campaign)
    validating = text("breast-outcome", RISK).replace(
        'name = "breast-outcome"', f'name = "breast-outcome"\nbundle = "{"a" * 64}"'
    )
    validating = validating[: validating.index("[training]")] + validating[validating.index("[estimator.options]") :]
    require_campaign(read_bundle(own).description, parse_campaign(validating))
    with pytest.raises(BundleRefused, match="is breast-outcome"):
        require_campaign(read_bundle(content).description, parse_campaign(validating))


@pytest.mark.parametrize(
    ("options", "training", "said"),
    [
        ({**RISK, "age_first": False}, "", "start_bundle is missing"),
        (RISK, f'start_bundle = "{"a" * 64}"', "age_first must be false"),
        (DIAGNOSIS, f'start_bundle = "{"a" * 64}"', "age_first must be false"),
        (RISK, 'keep = "best"', "chosen by the error of age"),
        (SCORE, "patience_rounds = 2", "chosen by the error of age"),
    ],
)
def test_files_that_cannot_begin_or_end_so_are_refused(options, training, said) -> None:
    with pytest.raises(CampaignErrors, match=said):
        parse_campaign(text("breast-outcome", options, training=training))


# --- what is learnt from ---


def known(columns: dict[str, np.ndarray], options: dict[str, Any], minimum_count: int = 10) -> dict[str, np.ndarray]:
    estimator = make("breast-outcome", options)
    return targets_of(estimator, Cohort(columns), np.arange(len(columns["age_years"])), minimum_count=minimum_count)


@pytest.mark.parametrize("events", [0, 1, 9])
def test_events_of_a_few_are_learnt_by_nobody(events: int) -> None:
    columns = columns_of(100, 1)
    columns["event"] = (np.arange(100) < events).astype(float)
    columns["cancer"] = columns["event"]
    made = known(columns, RISK)
    labels = np.column_stack([made[f"event by year {year}"] for year in range(1, 6)])
    assert not (labels == 1).any()
    assert not (known(columns, DIAGNOSIS)["outcome"] == 1).any()


def test_enough_events_are_learnt_from_by_year() -> None:
    columns = columns_of(400, 1)
    made = known(columns, RISK)
    for year in range(1, 6):
        labels = made[f"event by year {year}"]
        had = (columns["event"] == 1) & (columns["time_years"] <= year)
        np.testing.assert_array_equal(labels == 1, had)
        np.testing.assert_array_equal(labels == 0, columns["time_years"] > year)


@pytest.mark.parametrize("odd", [-1.0, 31.0, 1e9])
def test_a_score_outside_its_range_is_refused_and_not_cut(odd: float) -> None:
    columns = columns_of(40, 1)
    columns["score"][3] = odd
    with pytest.raises(Withheld, match="score_range") as refused:
        known(columns, SCORE)
    assert refused.value.rule == "column-values"


@pytest.mark.parametrize(
    ("options", "column", "value"), [(DIAGNOSIS, "cancer", 2.0), (RISK, "event", -1.0), (RISK, "event", 0.5)]
)
def test_codes_that_are_no_yes_or_no_are_refused(options, column, value) -> None:
    columns = columns_of(40, 1)
    columns[column][3] = value
    with pytest.raises(Withheld, match="values other than 0, 1"):
        known(columns, options)


@pytest.mark.parametrize(("options", "column"), [(DIAGNOSIS, "cancer"), (RISK, "time_years"), (SCORE, "score")])
def test_a_site_without_the_column_is_told_so(options, column) -> None:
    columns = columns_of(40, 1)
    del columns[column]
    with pytest.raises(Withheld, match=f"no column '{column}'"):
        known(columns, options)


# --- campaigns, in memory ---


def ran(folder: Path, written: str, *, content: bytes = b"", members: list[MemorySite] | None = None) -> Results:
    grid = InProcessGrid(members or sites(folder))
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    place.folder.mkdir(parents=True)
    if content:
        (place.folder / BUNDLE).write_bytes(content)
    conduct(PollingGrid(grid, poll_s=0.001), parse_campaign(written), place, key=None, admitted=grid.names)
    return read_results(place.folder / "results.json")


@pytest.mark.slow
@pytest.mark.parametrize("from_bundle", [False, True])
def test_three_hospitals_fine_tune_for_a_diagnosis(tmp_path: Path, from_bundle: bool) -> None:
    if from_bundle:
        ran(tmp_path / "age", text("breast-4view", TINY, rounds=4))
        model = load_file(tmp_path / "age" / "run" / "model.safetensors")
        content = write_bundle(described("breast-4view", TINY, model), model, key=KEY)
        folder = tmp_path / "outcome"
        results = ran(folder, with_bundle(content, DIAGNOSIS, rounds=4), content=content)
    else:
        folder = tmp_path
        results = ran(folder, text("breast-outcome", DIAGNOSIS, rounds=4))
    assert len(results.rounds) == (4 if from_bundle else 8)
    assert error_of(results) < 6.0, "the mean leaves 10 years"
    unseen = columns_of(200, 77)
    model = load_file(folder / "run" / "model.safetensors")
    made = make("breast-outcome", DIAGNOSIS).predictor(model, device="cpu")(views_of(unseen, 78))
    cases = unseen["cancer"] == 1
    reached, allowed = auc(made["outcome_probability"], cases), auc(unseen["chance"], cases)
    assert reached > 0.5 + 0.7 * (allowed - 0.5)


@pytest.mark.slow
def test_three_hospitals_fine_tune_for_a_risk_whose_order_is_told(tmp_path: Path) -> None:
    members = sites(tmp_path, count=160)
    more = '[survival]\ntable_times_years = [1, 2, 3, 4, 5]\ncurves_by = "is_male"\n[analyses.risk-discrimination]\n'
    written = text("breast-outcome", RISK, rounds=4, more=more)
    results = ran(tmp_path, written, members=members)
    step = results.analyses["risk-discrimination"]
    assert isinstance(step.result, RiskDiscrimination), step
    assert set(step.by_site) == {"a", "b", "c"}
    predict = make("breast-outcome", RISK).predictor(load_file(tmp_path / "run" / "model.safetensors"), device="cpu")
    concordant = comparable = 0.0
    for member in members:
        found = member.cohort(parse_campaign(written))
        rows = np.flatnonzero(found.cohort["is_test"] == 1)
        assert found.samples is not None
        risk = predict(found.samples.of(rows))["risk_5_years"]
        time = np.ceil(found.cohort["time_years"][rows] / 0.25 - 1e-9) * 0.25
        event = found.cohort["event"][rows] == 1
        for i in np.flatnonzero(event):
            others = (time > time[i]) | ((time == time[i]) & ~event)
            concordant += (risk[i] > risk[others]).sum() + (risk[i] == risk[others]).sum() / 2
            comparable += others.sum()
    assert step.result.comparable == comparable
    assert step.result.c_index_harrell == pytest.approx(concordant / comparable, abs=0.01)  # rounding of near risks


@pytest.mark.slow
@pytest.mark.parametrize("form", ["softmax", "additive-hazard"])
def test_both_forms_of_risk_are_learnt_from_one_sites_patients(form: str) -> None:
    """Of a federation the guide on benchmarks says how much less it learnt in as many steps."""
    estimator = make("breast-outcome", {**RISK, "risk_form": form})
    columns, unseen = columns_of(150, 0), columns_of(200, 99)
    targets = targets_of(estimator, Cohort(columns), np.arange(150), minimum_count=5)
    weights: dict[str, np.ndarray] = {}
    for phase, rate, epochs in zip(estimator.phases, (3e-3, 1e-3), (4, 6), strict=True):
        training = Training(rounds=1, local_epochs=epochs, batch_size=16, learning_rate=rate)
        weights = dict(
            train_locally(
                phase, phase.start(weights, seed=0), views_of(columns, 50), targets, training=training, round_number=1,
                rng_seed=1, threads=1, device="cpu",
            ).weights
        )  # fmt: skip
    made = estimator.predictor(weights, device="cpu")(views_of(unseen, 98))
    died = (unseen["event"] == 1) & (unseen["time_years"] <= 3)
    known = died | (unseen["time_years"] > 3)
    reached, allowed = (auc(x[known], died[known]) for x in (made["risk_3_years"], unseen["sign"]))
    assert reached > 0.5 + 0.7 * (allowed - 0.5)


@pytest.mark.slow
def test_three_hospitals_fine_tune_for_a_score(tmp_path: Path) -> None:
    results = ran(tmp_path, text("breast-outcome", SCORE, rounds=4))
    assert error_of(results) < 6.0, "the mean leaves 10 years"
    unseen = columns_of(200, 77)
    predict = make("breast-outcome", SCORE).predictor(load_file(tmp_path / "run" / "model.safetensors"), device="cpu")
    error = np.abs(predict(views_of(unseen, 78))["predicted_score"] - unseen["score"]).mean()
    assert error < 0.6 * np.abs(unseen["score"] - unseen["score"].mean()).mean()
