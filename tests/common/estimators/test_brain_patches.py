"""`brain-patches`: options, local ages and their combination, and that three hospitals learn ages together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch, Samples
from fedage.common.estimators.configure import kinked_loss
from fedage.common.networks.arrays import ModelRefused
from fedage.common.toml.problems import CampaignErrors
from tests.common.estimators.test_brain_tsan import SIDE, heads
from tests.of_estimators import network
from tests.plugins.pictures import TRAINED, cohort_of, site_with
from tests.plugins.test_in_process import error_of, run

TINY = {
    "shape": [SIDE] * 3, "spacing_mm": 8.0, "patch": 12, "per_axis": 2, "blocks": 2, "width": 8,
    "patches_in_training": 4, "shift_voxels": 1,
}  # fmt: skip


def volumes(count: int = 5) -> np.ndarray:
    return heads(np.linspace(42, 78, count), 1)


def batch(count: int = 5) -> Batch:
    return Batch({"t1w": torch.from_numpy(volumes(count))}, {}, {"age_years": torch.linspace(42, 78, count)})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"patch": 8}, "patch=8 must be at least 16 with blocks=4"),
        ({"shape": [31, 96, 80]}, "three numbers from patch=32 to 256"),
        ({"shape": [33, 96, 80]}, "do not differ"),
        ({"shape": [80, 130, 80]}, "leave voxels"),
        ({"by_place": True, "width": 64, "blocks": 5}, "use a smaller width"),
        ({"combine": "median"}, "'ridge' or 'mean'"),
    ],
)
def test_options_that_make_no_patches_are_refused(options, said) -> None:
    with pytest.raises(ValidationError, match=said):
        make("brain-patches", options)


def test_a_network_for_each_place_is_as_large_as_its_refusal_says() -> None:
    with pytest.raises(ValidationError, match=r"27 networks of (\d+(,\d+)*) parameters") as caught:
        make("brain-patches", {"by_place": True, "width": 48})
    said = int(str(caught.value).split("27 networks of ")[1].split(" ")[0].replace(",", ""))
    shared = network(make("brain-patches", {"width": 48})).build(seed=0)
    embedded = 27 * 8 + 8 * 32
    assert said == 27 * (sum(parameter.numel() for parameter in shared.parameters()) - embedded)


def test_patches_are_drawn_by_the_generator_and_belong_to_their_places() -> None:
    phase = network(make("brain-patches", TINY | {"augment": False}))
    first = phase.training_batch(batch(), generator=torch.Generator().manual_seed(3)).inputs
    again = phase.training_batch(batch(), generator=torch.Generator().manual_seed(3)).inputs
    other = phase.training_batch(batch(), generator=torch.Generator().manual_seed(4)).inputs
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["places"], other["places"])
    assert first["patches"].shape == (5, 4, 1, 12, 12, 12)
    assert all(len(set(row)) == 4 for row in first["places"].tolist())
    place = int(first["places"][2, 0])
    x, y, z = (12 * bit for bit in (place // 4, place // 2 % 2, place % 2))
    assert torch.equal(first["patches"][2, 0, 0], batch().inputs["t1w"][2, 0, x : x + 12, y : y + 12, z : z + 12])


@pytest.mark.parametrize(
    "changed",
    [{"by_place": True}, {"patches_in_training": 8}, {"norm": "group"}, {"scale_years": 10.0}, {"centre_years": 60.0}],
)
def test_each_choice_changes_the_loss(changed) -> None:
    losses = []
    for options in (TINY, TINY | changed):
        phase = network(make("brain-patches", options))
        drawn = phase.training_batch(batch(), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            losses.append(float(phase.loss(phase.output(phase.build(seed=2), drawn), drawn)))
    assert losses[0] != losses[1]
    assert kinked_loss(make("brain-patches", TINY)) == ""


def model_of(estimator, coefficients: np.ndarray, intercept: float) -> dict[str, np.ndarray]:
    ridge = {"medians": np.zeros(8), "means": np.zeros(8), "sds": np.ones(8), "coefficients": coefficients}
    arrays = {f"ridge.{name}": array for name, array in {**ridge, "intercept": np.array([intercept])}.items()}
    return {**network(estimator).start({}, seed=1), **arrays}


def test_the_ridge_combines_local_ages_and_equal_weights_give_their_mean() -> None:
    estimator = make("brain-patches", TINY | {"residuals": True})
    predicted = estimator.predictor(model_of(estimator, np.full(8, 1 / 8), 0.0), device="cpu")(samples())
    mean = make("brain-patches", TINY | {"combine": "mean", "residuals": True})
    by_mean = mean.predictor(network(mean).start({}, seed=1), device="cpu")(samples())
    np.testing.assert_allclose(predicted["predicted_years"], by_mean["predicted_years"], rtol=1e-6)
    kept = [by_mean[f"residual:1:{name}"] for name in mean.options.place_names]
    np.testing.assert_allclose(np.sum(kept, axis=0), 0.0, atol=1e-5)
    assert np.std(kept) > 0
    # One place alone is that place's local age.
    alone = estimator.predictor(model_of(estimator, np.eye(8)[3], 1.5), device="cpu")(samples())
    expected = by_mean["predicted_years"] + estimator.options.scale_years * by_mean["residual:1:place-1-2-2"] + 1.5
    np.testing.assert_allclose(alone["predicted_years"], expected, rtol=1e-5)


def samples() -> Samples:
    return Samples({"t1w": volumes()})


def test_an_empty_patch_has_the_mean_of_the_others() -> None:
    estimator = make("brain-patches", TINY | {"combine": "mean", "residuals": True})
    emptied = volumes()
    emptied[:, :, :12, :12, :12] = 0.0
    found = estimator.predictor(network(estimator).start({}, seed=1), device="cpu")(Samples({"t1w": emptied}))
    np.testing.assert_allclose(found["residual:1:place-1-1-1"], 0.0, atol=1e-5)
    others = network(estimator).local_years(
        network(estimator).start({}, seed=1), estimator.options.place_names, device="cpu"
    )
    full, left = others(samples()), others(Samples({"t1w": emptied}))
    np.testing.assert_allclose(left["place-2-2-2"], full["place-2-2-2"], rtol=1e-5)


def test_weights_of_other_places_are_refused() -> None:
    estimator = make("brain-patches", TINY)
    model = model_of(estimator, np.ones(8), 0.0)
    with pytest.raises(ModelRefused):
        estimator.predictor({**model, "ridge.sds": np.ones(27)}, device="cpu")
    with pytest.raises(ModelRefused):
        make("brain-patches", TINY | {"combine": "mean"}).predictor(model, device="cpu")


def campaign_text(*, rounds: int, more: str = "") -> str:
    text = TRAINED.format(name="brain-patches", rounds=rounds) + "batch_size = 10\n"
    options = "".join(f"{name} = {value}\n" for name, value in TINY.items())
    return text.replace("learning_rate = 0.01", "learning_rate = 0.003") + f"[estimator.options]\n{options}{more}"


def test_private_training_needs_group_normalisation_and_the_mean() -> None:
    """The ridge regression's sums would leave without noise."""
    private = 'minimum_count = 5\nmode = "sample"\nepsilon = 3.0\ndelta = 1e-5\nclip_norm = 1.0'
    for more, said in (
        ('norm = "group"\n', "phase 'combination' of brain-patches"),
        ('combine = "mean"\n', "use group normalisation"),
        ('norm = "group"\ncombine = "mean"\n', None),
    ):
        text = campaign_text(rounds=1, more=more).replace("minimum_count = 5", private)
        if said is None:
            assert parse_campaign(text).privacy.mode == "sample"
        else:
            with pytest.raises(CampaignErrors, match=said):
                parse_campaign(text)


def test_places_are_compared_between_diagnoses_where_they_are_kept() -> None:
    asked = "[analyses.regional-residuals]\ncolumn = 'diagnosis'\ndiagnoses = [1]\nreference = 0\n"
    campaign = parse_campaign(campaign_text(rounds=1, more="residuals = true\n") + asked)
    assert campaign.predicted_columns[1:3] == ("residual:1:place-1-1-1", "residual:1:place-1-1-2")


@pytest.mark.slow
def test_three_hospitals_learn_local_ages_together(tmp_path: Path) -> None:
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(60, seed)
        made = Samples({"t1w": heads(columns["age_years"], seed)})
        members.append(site_with(name, tmp_path, columns, made, seed))
    text = campaign_text(rounds=6) + "[validation]\nfolds = 2\n"
    assert error_of(run(tmp_path, text, members)) < 5.0, "the mean leaves 10 years"
