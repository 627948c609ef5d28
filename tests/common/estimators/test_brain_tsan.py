"""`brain-tsan`: options, its two stages one after another, sex, and that three hospitals learn ages together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError
from safetensors.numpy import load_file

from fedage.client.compute.training import train_locally
from fedage.common.bundle.container import read_bundle, write_bundle
from fedage.common.campaign.types import Training
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators import make
from fedage.common.estimators.base import ROW, Batch, Samples
from fedage.common.estimators.configure import kinked_loss
from fedage.common.networks.arrays import ModelRefused
from fedage.common.toml.problems import CampaignErrors
from tests.of_bundles import described
from tests.plugins.pictures import TRAINED, cohort_of, site_with
from tests.plugins.test_in_process import error_of, run

SIDE = 24
TINY = {"shape": [SIDE] * 3, "spacing_mm": 8.0, "blocks": 2}


def heads(ages: np.ndarray, seed: int) -> np.ndarray:
    """(n, 1, S, S, S): a dark ball, larger with age, in a bright one, and noise."""
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    r = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2)
    inner = 2 + (ages - 40) / 8
    made = 1 / (1 + np.exp(r - 10)) - 1 / (1 + np.exp(r[None] - inner[:, None, None, None]))
    noisy = made + 0.1 * np.random.default_rng(seed).normal(size=made.shape)
    return noisy[:, None].astype(np.float32)


def batch(count: int = 6) -> Batch:
    volumes = torch.from_numpy(heads(np.linspace(42, 78, count), 0))
    male = torch.tensor([0.0, 1.0, float("nan")]).repeat(count)[:count, None]
    return Batch({"t1w": volumes, ROW: male}, {}, {"age_years": torch.linspace(42, 78, count)})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": [25, 64, 64]}, "three numbers from 26 to 256 with blocks=4"),
        ({"shape": [41, 64, 64], "blocks": 5}, "three numbers from 42 to 256"),
        ({"blocks": 6}, "less than or equal to 5"),
        ({"width": 12}, "multiple of 8"),
        ({"rounded_to_years": 0.0}, "greater than or equal to 1"),
        ({"intensity": "max"}, "'mean' or 'foreground'"),
    ],
)
def test_options_that_make_no_network_are_refused(options, said) -> None:
    with pytest.raises(ValidationError, match=said):
        make("brain-tsan", options)


def test_the_published_sample_and_a_loss_that_does_not_bend() -> None:
    estimator = make("brain-tsan", {})
    assert estimator.shapes() == {"t1w": (1, 91, 109, 91), "row": (1,)}
    assert estimator.row_columns == ("is_male",)
    assert make("brain-tsan", {"sex_input": False}).shapes() == {"t1w": (1, 91, 109, 91)}
    assert kinked_loss(estimator) == ""


def test_an_unknown_sex_is_half_of_each() -> None:
    stage, given = make("brain-tsan", TINY).phases[0], batch(3)
    module = stage.build(seed=1).eval()

    def ages(male: float) -> torch.Tensor:
        inputs = {**given.inputs, ROW: torch.full((3, 1), male)}
        with torch.no_grad():
            return stage.output(module, Batch(inputs, {}, {}))

    assert torch.equal(ages(float("nan")), ages(0.5))
    assert not torch.equal(ages(0.0), ages(1.0))


@pytest.mark.parametrize(
    "changed",
    [
        {"ranking_weight": 0.0},
        {"difference_weight": 0.0},
        {"rank_temperature_years": 1.0},
        {"rounded_to_years": 7.0},
        {"first_age_years": 60.0},
        {"sex_input": False},
    ],
)
def test_each_ingredient_changes_the_loss(changed) -> None:
    losses = []
    for options in (TINY, TINY | changed):
        _first, second = make("brain-tsan", options).phases
        module = second.build(seed=2).eval()
        with torch.no_grad():
            losses.append(float(second.loss(second.output(module, batch()), batch())))
    assert losses[0] != losses[1]


def test_the_second_stage_begins_with_the_first_as_it_was_trained() -> None:
    first, second = make("brain-tsan", TINY).phases
    trained = first.start({}, seed=7)
    begun = second.start(trained, seed=3)
    ages = first.predictor(trained, device="cpu")(samples())["predicted_years"]
    after = second.predictor(begun, device="cpu")(samples())["predicted_years"]
    rest = after - np.floor(ages / 5 + 0.5) * 5
    assert np.abs(rest).max() < 30
    with pytest.raises(ModelRefused, match="is missing"):
        second.start({name: a for name, a in trained.items() if "stem" not in name}, seed=3)
    assert not np.array_equal(begun["trunk.stem.0.weight"], trained["trunk.stem.0.weight"])


def test_a_bundle_carries_both_stages() -> None:
    first, second = (estimator := make("brain-tsan", TINY)).phases
    model = second.start(first.start({}, seed=7), seed=3)
    key = Ed25519PrivateKey.generate()
    read = read_bundle(write_bundle(described("brain-tsan", TINY, model), model, key=key))
    assert set(read.weights) == set(model)
    expected = estimator.predictor(model, device="cpu")(samples())["predicted_years"]
    found = estimator.predictor(read.weights, device="cpu")(samples())["predicted_years"]
    np.testing.assert_array_equal(found, expected)


def test_without_a_second_stage_the_first_predicts() -> None:
    estimator = make("brain-tsan", TINY | {"second_stage": False})
    (only,) = estimator.phases
    model = only.start({}, seed=7)
    assert estimator.predictor(model, device="cpu")(samples())["predicted_years"].shape == (5,)
    with pytest.raises(ModelRefused):
        make("brain-tsan", TINY).predictor(model, device="cpu")


def samples() -> Samples:
    return Samples({"t1w": heads(np.linspace(42, 78, 5), 1), ROW: np.array([[0.0], [1.0], [0.0], [1.0], [1.0]])})


def campaign_text(*, rounds: int, more: str = "") -> str:
    text = TRAINED.format(name="brain-tsan", rounds=rounds) + "batch_size = 10\n"
    options = "".join(f"{name} = {value}\n" for name, value in TINY.items())
    return text.replace("learning_rate = 0.01", "learning_rate = 0.003") + f"[estimator.options]\n{options}{more}"


@pytest.mark.slow
def test_a_step_of_both_stages_at_the_published_size_with_the_smallest_batch() -> None:
    """102 million parameters a stage."""
    estimator, before = make("brain-tsan", {"blocks": 5}), {}
    for phase in estimator.phases:
        first = phase.start(before, seed=0)
        count = phase.smallest_batch
        x = np.random.default_rng(0).standard_normal((count, 1, 91, 109, 91)).astype(np.float32)
        update = train_locally(
            phase, first, Samples({"t1w": x, ROW: np.ones((count, 1))}), {"age_years": np.linspace(50.0, 70.0, count)},
            training=Training(rounds=1, batch_size=count, optimiser="adam"), round_number=1, rng_seed=1, threads=2,
            device="cpu",
        )  # fmt: skip
        assert update.mean_loss is not None
        assert np.isfinite(update.mean_loss)
        learnt = dict(phase.build(seed=0).named_parameters())
        assert all(np.isfinite(update.weights[name]).all() for name in learnt)
        moved = np.sqrt(sum(np.square(update.weights[name] - first[name]).sum() for name in learnt))
        assert 0 < moved < estimator.max_step_norm
        before = update.weights


def test_privacy_for_each_patient_and_a_batch_of_two_are_refused() -> None:
    private = 'minimum_count = 5\nmode = "sample"\nepsilon = 3.0\ndelta = 1e-5\nclip_norm = 1.0'
    with pytest.raises(CampaignErrors, match="brain-tsan"):
        parse_campaign(campaign_text(rounds=1).replace("minimum_count = 5", private))
    with pytest.raises(CampaignErrors, match="must be ≥ 4 with brain-tsan"):
        parse_campaign(campaign_text(rounds=1).replace("batch_size = 10", "batch_size = 3"))


@pytest.mark.slow
def test_three_hospitals_learn_ages_in_two_stages(tmp_path: Path) -> None:
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(40, seed)
        made = Samples({"t1w": heads(columns["age_years"], seed), ROW: columns["is_male"][:, None]})
        members.append(site_with(name, tmp_path, columns, made, seed))
    folds = "[validation]\nfolds = 2\n"
    error = error_of(run(tmp_path / "both", campaign_text(rounds=6) + folds, members))
    assert error < 5.0, "the mean leaves 10 years"
    first = error_of(run(tmp_path / "first", campaign_text(rounds=6, more="second_stage = false\n") + folds, members))
    assert error < first < 10.0
    # The same seed and the same patients: the frozen stage of the one run is the model of the other.
    model = load_file(tmp_path / "both" / "run" / "model-fold-1.safetensors")
    alone = load_file(tmp_path / "first" / "run" / "model-fold-1.safetensors")
    assert all(np.array_equal(model[f"first.{name.replace('.', '/')}/frozen"], array) for name, array in alone.items())
