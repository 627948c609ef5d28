"""`brain-contrastive`: options, views, and that three hospitals learn ages together from small volumes in memory."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file

from fedage.common.analyses.evaluation.likely_site import ANALYSIS as DEFINITION
from fedage.common.analyses.evaluation.likely_site import SiteProbe
from fedage.common.campaign_file import parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch, Samples
from fedage.common.estimators.configure import kinked_loss
from fedage.common.networks.arrays import ModelRefused
from fedage.common.preprocessing.augmentation import cropped_in_place, with_a_cube_cut_out
from fedage.common.toml.problems import CampaignErrors
from tests.of_estimators import network
from tests.plugins.pictures import TRAINED, cohort_of, site_with
from tests.plugins.test_in_process import error_of, run

SIDE = 32
TINY = {"shape": [SIDE] * 3, "width": 8, "dimensions": 4, "kernel_width_years": 5.0}
OPTIONS = "".join(f"{name} = {value}\n" for name, value in TINY.items())


def heads(ages: np.ndarray, seed: int) -> np.ndarray:
    """(n, 1, S, S, S): a dark ball, larger with age, in a bright one, and noise."""
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    r = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None] ** 2)
    inner = 2 + (ages - 40) / 6
    made = 1 / (1 + np.exp(r - 14)) - 1 / (1 + np.exp(r[None] - inner[:, None, None, None]))
    noisy = made + 0.1 * np.random.default_rng(seed).normal(size=made.shape)
    return noisy[:, None].astype(np.float32)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"augment": "none"}, "makes equal views"),
        ({"shape": [31, 64, 64]}, "three numbers from 32 to 256"),
        ({"loss": "triplet"}, "'exp', 'y-aware' or 'threshold'"),
        ({"kernel": "box"}, "'rbf', 'gaussian' or 'cauchy'"),
        ({"encoder": "resnet50"}, "'resnet18' or 'densenet121'"),
        ({"views": 3}, "1 or 2"),
        ({"temperature": 0.0}, "greater than or equal to 0.01"),
    ],
)
def test_options_that_cannot_be_are_refused(options, said) -> None:
    with pytest.raises(ValidationError, match=said):
        make("brain-contrastive", options)


def test_one_view_needs_no_change_and_the_loss_does_not_bend() -> None:
    estimator = make("brain-contrastive", {**TINY, "views": 1, "augment": "none"})
    volumes = torch.rand(3, 1, SIDE, SIDE, SIDE)
    made = network(estimator).training_batch(Batch({"t1w": volumes}, {}, {}), generator=torch.Generator())
    assert list(made.inputs) == ["view 1"]
    assert torch.equal(made.inputs["view 1"], volumes)
    assert kinked_loss(estimator) == ""


def test_views_differ_and_follow_from_the_generator() -> None:
    phase = network(make("brain-contrastive", TINY))
    batch = Batch({"t1w": torch.rand(4, 1, SIDE, SIDE, SIDE) + 1}, {}, {})
    first = phase.training_batch(batch, generator=torch.Generator().manual_seed(3)).inputs
    again = phase.training_batch(batch, generator=torch.Generator().manual_seed(3)).inputs
    assert not torch.equal(first["view 1"], first["view 2"])
    assert all(torch.equal(view, again[name]) for name, view in first.items())


def test_a_cube_is_cut_out_of_some_and_a_crop_keeps_its_size() -> None:
    volumes = torch.rand(200, 1, 16, 16, 16) + 1
    cut = with_a_cube_cut_out(volumes, generator=torch.Generator().manual_seed(0))
    holes = (cut == 0).flatten(1).sum(dim=1)
    assert set(holes.tolist()) == {0, 4**3}
    assert 60 < int((holes > 0).sum()) < 140
    assert torch.equal(cut[cut > 0], volumes[cut > 0])
    cropped = cropped_in_place(volumes, generator=torch.Generator().manual_seed(0), side_fraction=0.75)
    assert ((cropped > 0).flatten(1).sum(dim=1) == 12**3).all()
    assert (cropped[:, :, 2:14, 2:14, 2:14] > 0).all()
    assert not torch.equal(cropped[:, :, 2:14, 2:14, 2:14], volumes[:, :, 2:14, 2:14, 2:14])
    whole = cropped_in_place(volumes, generator=torch.Generator().manual_seed(0), side_fraction=1.0)
    assert torch.equal(whole, volumes)


@pytest.mark.parametrize(
    "changed",
    [
        {"loss": "y-aware"},
        {"loss": "threshold"},
        {"keep_positive": True},
        {"kernel": "cauchy"},
        {"kernel": "gaussian"},
        {"kernel_width_years": 2.0},
        {"temperature": 0.5},
    ],
)
def test_each_choice_changes_the_loss(changed) -> None:
    z = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    batch = Batch({}, {}, {"age_years": torch.linspace(30, 60, 8)})
    usual = network(make("brain-contrastive", TINY)).loss(z, batch)
    other = network(make("brain-contrastive", {**TINY, **changed})).loss(z, batch)
    assert abs(usual.item() - other.item()) > 1e-3


def campaign_text(*, rounds: int, more: str = "") -> str:
    text = TRAINED.format(name="brain-contrastive", rounds=rounds) + f"batch_size = 16\n{more}"
    return text.replace("learning_rate = 0.01", "learning_rate = 0.003") + f"[estimator.options]\n{OPTIONS}"


def test_a_small_batch_and_privacy_for_each_patient_are_refused() -> None:
    with pytest.raises(CampaignErrors, match="must be ≥ 8 with brain-contrastive"):
        parse_campaign(campaign_text(rounds=1).replace("batch_size = 16", "batch_size = 4"))
    private = 'minimum_count = 5\nmode = "sample"\nepsilon = 3.0\ndelta = 1e-5\nclip_norm = 1.0'
    with pytest.raises(CampaignErrors, match="brain-contrastive"):
        parse_campaign(campaign_text(rounds=1).replace("minimum_count = 5", private))


def test_a_site_probe_needs_named_sites_and_sums_that_are_not_hidden() -> None:
    text = campaign_text(rounds=1) + "site_probe = true\n"
    campaign = parse_campaign(text)
    assert campaign.predicted_columns == ("predicted_years", "likely_site")
    assert any("which site the images are likely from" in sentence for sentence in campaign_sentences(campaign))
    with pytest.raises(CampaignErrors, match=r"campaign\.sites has 0 sites that train"):
        parse_campaign(text.replace('sites = ["a", "b", "c"]\n', ""))
    with pytest.raises(CampaignErrors, match=r"campaign\.sites has 1 sites that train"):
        parse_campaign(text + '[validation]\nfolds = 2\nfinal_model = true\nsites = ["a", "b"]\n')
    with pytest.raises(CampaignErrors, match=r"site_probe: not possible with privacy\.secure_aggregation"):
        parse_campaign(text.replace("[privacy]", "[privacy]\nsecure_aggregation = true"))
    without = campaign_sentences(parse_campaign(campaign_text(rounds=1)))
    assert not any("likely from" in sentence for sentence in without)


@pytest.mark.parametrize(
    "changed",
    [
        lambda _probe: {},
        lambda probe: {**probe, "sites.directions": probe["sites.directions"][:, :3]},
        lambda probe: {**probe, "sites.constants": np.array([0.0, np.nan, 0.0])},
        lambda probe: {**probe, "sites.more": np.zeros(3)},
    ],
)
def test_weights_of_another_probe_are_refused(changed) -> None:
    estimator = make("brain-contrastive", {**TINY, "site_probe": True})
    ridge = {f"ridge.{name}": np.ones(4) for name in ("medians", "means", "sds", "coefficients")}
    model = {**network(estimator).start({}, seed=0), **ridge, "ridge.intercept": np.ones(1)}
    probe = {"sites.directions": np.ones((3, 4)), "sites.constants": np.array([0.0, 2.0, 1.0])}
    volumes = Samples({"t1w": np.random.default_rng(0).random((2, 1, SIDE, SIDE, SIDE), dtype=np.float32)})
    predicted = estimator.predictor({**model, **probe}, device="cpu")(volumes)
    assert predicted["likely_site"].tolist() == [2, 2]
    with pytest.raises(ModelRefused, match="site probe"):
        estimator.predictor({**model, **changed(probe)}, device="cpu")
    with pytest.raises(ModelRefused, match="site probe"):
        make("brain-contrastive", TINY).predictor({**model, **probe}, device="cpu")


@pytest.mark.slow
def test_sites_with_scanners_of_their_own_are_told_apart_and_one_that_only_validates_makes_the_score(
    tmp_path: Path,
) -> None:
    members = []
    for seed, name in enumerate("abcd"):
        columns = cohort_of(40, seed)
        volumes = heads(columns["age_years"], seed)
        volumes[:, :, : 2 + 2 * seed, :2] += 2.0  # a mark of the scanner
        members.append(site_with(name, tmp_path, columns, Samples({"t1w": volumes}), seed))
    text = campaign_text(rounds=2).replace('sites = ["a", "b", "c"]', 'sites = ["a", "b", "c", "d"]')
    text += 'site_probe = true\n[validation]\nfolds = 2\nfinal_model = true\nsites = ["d"]\n'
    results = run(tmp_path, text, members)
    probe, why = results.outcome("site-probe", SiteProbe)
    assert probe is not None, why
    assert set(probe.recall_low) == {"a", "b", "c"}
    assert probe.n == 120
    assert probe.balanced_accuracy_high > 0.6
    assert probe.external_mae_years is not None
    assert probe.openbhb_high == pytest.approx(probe.external_mae_years * probe.balanced_accuracy_high**0.3)
    assert set(results.external["evaluation:test"].by_site) == {"d"}
    assert probe.internal_mae_years == error_of(results)
    (shown,) = DEFINITION.shown(results).sentences
    assert "OpenBHB score" in shown


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["exp", "y-aware", "threshold"])
def test_three_hospitals_learn_ages_together(tmp_path: Path, loss: str) -> None:
    members = []
    for seed, name in enumerate("abc"):
        columns = cohort_of(40, seed)
        members.append(site_with(name, tmp_path, columns, Samples({"t1w": heads(columns["age_years"], seed)}), seed))
    text = campaign_text(rounds=6, more="final_learning_rate_fraction = 0.05\n")
    results = run(tmp_path, text + f'loss = "{loss}"\n[validation]\nfolds = 2\n', members)
    assert error_of(results) < 6.0, "the mean leaves 10 years"
    phase = network(make("brain-contrastive", {**TINY, "loss": loss}))
    ages = np.linspace(42, 78, 16)
    unseen = Batch({"t1w": torch.from_numpy(heads(ages, 9))}, {}, {"age_years": torch.from_numpy(ages)})
    model = load_file(tmp_path / "run" / "model-fold-1.safetensors")
    finished = {name: array for name, array in model.items() if not name.startswith("ridge.")}
    assert loss_of(phase, finished, unseen) < loss_of(phase, phase.start({}, seed=3), unseen) - 0.5


def loss_of(phase, arrays, batch: Batch) -> float:
    """Of volumes as they are."""
    module = phase.build(seed=0).eval()
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in arrays.items()})
    with torch.no_grad():
        return float(phase.loss(phase.output(module, batch), batch))
