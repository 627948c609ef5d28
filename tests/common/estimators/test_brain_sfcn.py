"""`brain-sfcn`: options, ages that its bins hold, what a campaign file may ask of it, and that it can learn."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load_file

from fedage.common.campaign_file import parse_campaign
from fedage.common.campaign_file.new import Answers, campaign_text
from fedage.common.errors import FedAgeError
from fedage.common.estimators import make
from fedage.common.estimators.base import Batch
from fedage.common.estimators.configure import kinked_loss, usual_age_limits
from fedage.common.networks.arrays import ModelRefused, state_to_arrays
from fedage.common.preprocessing.augmentation import shifted_and_mirrored
from fedage.common.preprocessing.image import Exam, Image
from fedage.common.toml.problems import CampaignErrors
from fedage.server.cli.published_weights import write_weights
from tests.of_estimators import built, network, predict_years

TINY = {"shape": [32, 32, 32], "spacing_mm": 6.0, "width": 8}

CAMPAIGN = """
[campaign]
name = "brains"
purpose = "Age from T1-weighted volumes of the head"
seed = 3
[estimator]
name = "brain-sfcn"
{options}
[training]
rounds = 2
{cohort}
"""


def campaign(cohort: str = "", options: str = ""):
    return parse_campaign(
        CAMPAIGN.format(
            cohort=f"[cohort]\n{cohort}" if cohort else "", options=f"[estimator.options]\n{options}" if options else ""
        )
    )


# --- options ---

PUBLISHED = {"weights_sha256": "0" * 64, "first_bin_years": 42.0, "last_bin_years": 82.0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"first_bin_years": 50.0, "last_bin_years": 90.0}, "set first_bin_years = 42.0, last_bin_years = 82.0"),
        ({"norm": "group"}, "set norm = 'batch'"),
        ({"width": 16}, "set width = 32"),
        ({"intensity": "foreground"}, "set intensity = 'mean'"),
        ({"spacing_mm": 2.0}, "set spacing_mm = 1.0"),
    ],
)
def test_published_weights_need_the_published_network(change, said) -> None:
    assert make("brain-sfcn", PUBLISHED).given_sha256 == "0" * 64
    with pytest.raises(ValidationError, match=said):
        make("brain-sfcn", PUBLISHED | change)


def test_a_published_file_is_what_the_network_begins_with(tmp_path) -> None:
    published = network(make("brain-sfcn", PUBLISHED)).build(seed=4)
    file, out = tmp_path / "published.p", tmp_path / "out.safetensors"
    torch.save({f"module.{name}": tensor for name, tensor in published.state_dict().items()}, file)
    digest = write_weights(file, backbone="sfcn", out=out)
    given = load_file(out)
    phase = network(make("brain-sfcn", PUBLISHED | {"weights_sha256": digest, "shape": [32, 64, 32]}))
    begun = phase.start(given, seed=9)
    for name, array in state_to_arrays(published).items():
        np.testing.assert_array_equal(begun[name], array)
    state = published.state_dict()
    del state["classifier.conv_6.bias"]
    torch.save(state, file)
    with pytest.raises(FedAgeError, match="the state is not one of this network"):
        write_weights(file, backbone="sfcn", out=out)
    with pytest.raises(ModelRefused, match="is missing"):
        phase.start({name: array for name, array in given.items() if "conv_6" not in name}, seed=0)


def test_the_published_network_by_its_options() -> None:
    options = {"norm": "batch", "first_bin_years": 42.0, "last_bin_years": 82.0}
    estimator = make("brain-sfcn", options)
    module = network(estimator).build(seed=0)
    assert sum(parameter.numel() for parameter in module.parameters()) == 2_952_936
    assert estimator.shapes() == {"t1w": (1, 160, 192, 160)}
    assert estimator.ages_years == (45.0, 79.0)
    age, sd = estimator.outputs
    assert (age.column, age.lower, age.upper) == ("predicted_years", 42.5, 81.5)
    assert (sd.column, sd.lower, sd.upper) == ("predicted_sd_years", 0.0, 20.0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": [31, 64, 64]}, "three numbers from 32 to 256"),
        ({"shape": [64, 64, 257]}, "three numbers from 32 to 256"),
        ({"last_bin_years": 98.5}, "whole bins"),
        ({"first_bin_years": 98.0}, "whole bins"),
        ({"bin_width_years": 4.0, "last_bin_years": 96.0}, "at least half of bin_width_years"),
        ({"first_bin_years": 50.0, "last_bin_years": 56.0}, "widen the bins' range"),
        ({"label_sd_years": 0.1}, "greater than or equal to 0.5"),
        ({"norm": "layer"}, "'group' or 'batch'"),
        ({"intensity": "max"}, "'mean' or 'foreground'"),
    ],
)
def test_options_that_make_no_network_are_refused(options, said) -> None:
    with pytest.raises(ValidationError, match=said):
        make("brain-sfcn", options)


def test_the_loss_does_not_bend() -> None:
    assert kinked_loss(make("brain-sfcn", {})) == ""


# --- ages beyond the bins ---


def test_a_file_that_states_no_ages_asks_for_those_of_the_bins() -> None:
    found = campaign().cohort
    assert (found.age_min_years, found.age_max_years) == (15.0, 95.0)
    assert campaign().predicted_columns == ("predicted_years", "predicted_sd_years")


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ("first_bin_years = 42.0\nlast_bin_years = 82.0", (45.0, 75.0)),
        ("first_bin_years = -3.0\nlast_bin_years = 21.0", (0.0, 15.0)),
        ("first_bin_years = 12.5\nlast_bin_years = 97.5", (20.0, 90.0)),
    ],
)
def test_limits_that_follow_from_bins_are_whole_5_years_inwards(options, limits) -> None:
    """So that nobody singles out who is between two limits by moving the bins from file to file."""
    found = campaign(options=options).cohort
    assert (found.age_min_years, found.age_max_years) == limits
    assert usual_age_limits(make("brain-sfcn", {})) == (15.0, 95.0)


@pytest.mark.parametrize(
    ("cohort", "said"),
    [
        ("age_min_years = 10.0", r"cohort.age_min_years = 10: must be ≥ 15"),
        ("age_max_years = 100.0", r"cohort.age_max_years = 100: must be ≤ 95"),
        ("age_min_years = 0.0\nage_max_years = 95.0", r"cohort.age_min_years = 0: must be ≥ 15"),
        ("age_min_years = 14.999", "must be ≥ 15, as brain-sfcn with these options is for ages from 15 to 95"),
    ],
)
def test_ages_beyond_the_bins_are_an_error_of_the_file(cohort, said) -> None:
    with pytest.raises(CampaignErrors, match=said):
        campaign(cohort)


def test_bins_without_whole_5_years_need_stated_ages() -> None:
    narrow = "first_bin_years = 58.0\nlast_bin_years = 67.0"
    with pytest.raises(CampaignErrors, match="must state age_min_years and age_max_years"):
        campaign(options=narrow)
    assert campaign("age_min_years = 61.0\nage_max_years = 64.0", narrow).cohort.age_max_years == 64.0


def test_ages_within_the_bins_stand_as_they_are_stated() -> None:
    found = campaign("age_min_years = 40.0\nage_max_years = 80.0").cohort
    assert (found.age_min_years, found.age_max_years) == (40.0, 80.0)


@pytest.mark.parametrize("estimator", ["chest-ca", "brain-sfcn"])
def test_a_new_file_is_right_as_it_is(estimator) -> None:
    answers = Answers(estimator=estimator, name="new", purpose="Age from images of three hospitals", survival=False)
    text = campaign_text(answers).replace("#rounds = 20", "rounds = 20")
    found = parse_campaign(text)
    ages = (found.cohort.age_min_years, found.cohort.age_max_years)
    assert ages == ((15.0, 95.0) if estimator == "brain-sfcn" else (0.0, 130.0))


# --- samples ---


def head(shape=(64, 64, 64)) -> np.ndarray:
    i, j, k = (np.arange(n) - (n - 1) / 2 for n in shape)
    r = np.sqrt(i[:, None, None] ** 2 + j[None, :, None] ** 2 + k[None, None, :] ** 2)
    return np.asarray(np.where(r < 25, 100 + 20 * np.cos(r / 3), 2.0), dtype=np.float32)


def test_a_sample_of_the_shape_and_spacing_asked_for() -> None:
    image = Image(pixels=head(), spacing_mm=(3.0, 3.0, 3.0), modality="MR", view="T1W", orientation="RAS")
    estimator = make("brain-sfcn", TINY)
    sample = estimator.preprocess(Exam({"t1w": image}))["t1w"]
    assert sample.shape == estimator.shapes()["t1w"] == (1, 32, 32, 32)
    assert sample.dtype == np.float32
    assert sample.mean() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_augmentation_shifts_whole_voxels_and_mirrors_left_and_right(most) -> None:
    volumes = torch.rand(12, 1, 6, 7, 8, generator=torch.Generator().manual_seed(0))
    found = shifted_and_mirrored(volumes, most_voxels=most, generator=torch.Generator().manual_seed(1))
    assert found.shape == volumes.shape
    padded = torch.nn.functional.pad(volumes, (most,) * 6, mode="replicate")
    places, flips = set(), set()
    for one, source in zip(found, padded, strict=True):
        ways = [
            (a, b, c, flip)
            for a in range(2 * most + 1)
            for b in range(2 * most + 1)
            for c in range(2 * most + 1)
            for flip in (False, True)
            if torch.equal(one.flip(1) if flip else one, source[:, a : a + 6, b : b + 7, c : c + 8])
        ]
        assert len(ways) == 1
        places.add(ways[0][:3])
        flips.add(ways[0][3])
    assert flips == {False, True}
    assert len(places) > 1 or most == 0
    again = shifted_and_mirrored(volumes, most_voxels=most, generator=torch.Generator().manual_seed(1))
    assert torch.equal(found, again)


def test_without_augmentation_a_batch_is_as_it_is() -> None:
    phase = network(make("brain-sfcn", {**TINY, "augment": False}))
    batch = Batch({"t1w": torch.rand(2, 1, 32, 32, 32)}, {}, {})
    assert phase.training_batch(batch, generator=torch.Generator()) is batch


# --- network ---


def test_initial_weights_depend_on_the_seed_alone() -> None:
    estimator = make("brain-sfcn", TINY)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = built(estimator, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    same, other = built(estimator, seed=7), built(estimator, seed=8)
    assert all(np.array_equal(array, same[name]) for name, array in first.items())
    assert any(not np.array_equal(array, other[name]) for name, array in first.items())


def test_predictions_before_training_are_within_the_bins() -> None:
    estimator = make("brain-sfcn", TINY)
    volumes = np.random.default_rng(0).random((3, 1, 32, 32, 32), dtype=np.float32)
    years = predict_years(estimator, built(estimator, seed=0), volumes)
    assert years.shape == (3,)
    assert ((years > 12.5) & (years < 97.5)).all()


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_a_few_steps_lower_the_loss(norm) -> None:
    tiny = {"shape": [16, 16, 16], "spacing_mm": 8.0, "width": 8, "poolings": 3}
    phase = network(make("brain-sfcn", {**tiny, "norm": norm, "augment": False}))
    module = phase.build(seed=0).train()
    ages = torch.tensor([30.0, 50.0, 70.0, 90.0])
    volumes = (ages / 60).view(-1, 1, 1, 1, 1) * torch.ones(4, 1, 16, 16, 16)
    volumes[:, :, ::2] *= ages.view(-1, 1, 1, 1, 1) / 60
    batch = Batch({"t1w": volumes}, {}, {"age_years": ages})
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = phase.loss(phase.output(module, batch), batch)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_one_step_at_the_paper_s_full_size(norm) -> None:
    """With the phase's smallest batch: one patient with GroupNorm, two with BatchNorm."""
    phase = network(make("brain-sfcn", {"norm": norm, "first_bin_years": 42.0, "last_bin_years": 82.0}))
    module = phase.build(seed=0).train()
    count = phase.smallest_batch + (norm == "batch")
    volumes = torch.rand(count, 1, 160, 192, 160, generator=torch.Generator().manual_seed(0))
    batch = Batch({"t1w": volumes}, {}, {"age_years": torch.linspace(50, 70, count)})
    changed = phase.training_batch(batch, generator=torch.Generator().manual_seed(1))
    optimiser = torch.optim.SGD(module.parameters(), lr=0.01)
    before = {name: value.clone() for name, value in module.named_parameters()}
    loss = phase.loss(phase.output(module, changed), changed)
    loss.backward()
    optimiser.step()
    assert np.isfinite(loss.item())
    assert all(torch.isfinite(value).all() for value in module.state_dict().values())
    assert not torch.equal(before["classifier.conv_6.weight"], module.classifier.conv_6.weight)
