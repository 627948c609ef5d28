"""`brain-clinical2d`: which exams it takes, what it trains on, what each ingredient does, what it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fedage.common.estimators import make
from fedage.common.estimators.base import Batch
from fedage.common.preprocessing.image import Exam, Image, SampleRefused
from tests.of_estimators import built, network

TINY: dict[str, Any] = {
    "shape": [16, 20, 24], "spacing_mm": 8.0, "coarsest_mm": 8.0, "up_mm": 2.5, "slices": [14, 24], "width": 8,
    "poolings": 3,
}  # fmt: skip


def head(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, cavity: float = 1.0) -> Image:
    """A soft ball with a cavity of this size and a bright cap, so that slices differ."""
    i, j, k = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)), indexing="ij"
    )
    r = np.sqrt((i / 70) ** 2 + (j / 80) ** 2 + (k / 75) ** 2)
    hole = np.sqrt((i / 20) ** 2 + (j / 35) ** 2 + ((k - 10) / 15) ** 2) / cavity
    pixels = 100 / (1 + np.exp((r - 1) * 12)) * (1 + 0.3 * np.tanh((k - 30) / 15)) - 60 / (1 + np.exp((hole - 1) * 6))
    return Image(np.asarray(np.maximum(pixels, 0), np.float32), spacing_mm, "MR", view="T1W", orientation="RAS")


VOLUME = head((24, 28, 80), (7.5, 7.5, 2.4))


def sample(image: Image, **options: Any) -> dict[str, np.ndarray]:
    return dict(make("brain-clinical2d", {**TINY, **options}).preprocess(Exam({"t1w": image})))


@pytest.mark.parametrize("apart_mm", [5.0, 6.6, 7.5, 9.0, 3.6])
def test_a_series_of_thick_slices_is_taken_as_it_is_and_brain_sfcn_sets_it_aside(apart_mm: float) -> None:
    series = head((60, 72, 22 if apart_mm > 4 else 44), (3.0, 3.0, apart_mm))
    made = sample(series)
    assert {name: array.shape for name, array in made.items()} == {"t1w": (1, 16, 20, 24), "volume": (1, 16, 20, 77)}
    assert not made["volume"].any()
    assert made["t1w"].any(axis=(0, 1, 2)).sum() >= 20
    with pytest.raises(SampleRefused) as refused:
        make("brain-sfcn", {}).preprocess(Exam({"t1w": series}))
    assert refused.value.code == "too-coarse"


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "code"),
    [
        ((60, 72, 18), (3.0, 3.0, 9.6), "too-coarse"),
        ((30, 72, 80), (9.0, 3.0, 2.4), "too-coarse"),
        ((60, 30, 80), (3.0, 8.4, 2.0), "too-coarse"),
        ((60, 72, 12), (3.0, 3.0, 6.0), "too-small"),
        ((60, 72, 30), (3.0, 3.0, 2.4), "too-small"),
        ((20, 72, 24), (3.0, 3.0, 6.0), "too-small"),
    ],
)
def test_other_protocols_planes_and_parts_of_heads_are_refused(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], code: str
) -> None:
    with pytest.raises(SampleRefused) as refused:
        sample(head(shape, spacing_mm))
    assert refused.value.code == code
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("apart_mm", [6.0, 7.0, 7.8])
def test_slices_of_a_volume_look_like_a_series_of_the_same_head(apart_mm: float) -> None:
    options = {"thickness_mm": [apart_mm - 1] * 2, "gap_mm": [1.0, 1.0], "slices": [22, 22]}
    simulated = sample(VOLUME, **options)["t1w"]
    fine = head((24, 28, 440), (7.5, 7.5, apart_mm / 20))
    z_mm = (np.arange(440) - 219.5) * apart_mm / 20
    centres_mm = (np.arange(22) - 10.5) * apart_mm
    profile = np.exp(-(((z_mm[:, None] - centres_mm) / ((apart_mm - 1) / 2.3548)) ** 2) / 2)
    pixels = np.asarray(fine.pixels @ (profile / profile.sum(axis=0)), np.float32)
    real = sample(Image(pixels, (7.5, 7.5, apart_mm), "MR", view="T1W", orientation="RAS"), **options)["t1w"]
    inside = slice(3, -3)
    a, b = (one[..., inside].ravel() / one[..., inside].mean() for one in (simulated, real))
    assert np.corrcoef(a, b)[0, 1] > 0.995
    assert np.abs(a - b).max() < 0.25


def batch(*images: Image, **options: Any) -> Batch:
    made = [sample(image, **options) for image in images]
    inputs = {name: torch.from_numpy(np.stack([one[name] for one in made])) for name in made[0]}
    return Batch(inputs, {}, {"age_years": torch.linspace(40, 70, len(images))})


def trained_on(of: Batch, *, seed: int = 0, **options: Any) -> torch.Tensor:
    phase = network(make("brain-clinical2d", {**TINY, **options}))
    changed = phase.training_batch(of, generator=torch.Generator().manual_seed(seed))
    assert changed.targets is of.targets
    (name,) = changed.inputs
    return changed.inputs[name]


def test_a_site_draws_a_protocol_for_each_exam_and_leaves_real_series_as_they_are() -> None:
    series = head((60, 72, 22), (3.0, 3.0, 6.6))
    both = batch(VOLUME, series, VOLUME)
    slices = trained_on(both, augment=False)
    assert torch.equal(slices[1], both.inputs["t1w"][1])
    assert not torch.allclose(slices[0], slices[2], atol=1e-2)
    assert torch.equal(trained_on(both, augment=False), slices)
    assert not torch.equal(trained_on(both, augment=False, seed=1), slices)
    assert not torch.equal(trained_on(both), slices)


ABLATIONS: dict[str, dict[str, Any]] = {
    "slice profile": {"slice_profile": "none"},
    "thickness": {"thickness_mm": [5.0, 5.0]},
    "gap": {"gap_mm": [0.0, 0.0]},
    "number of slices": {"slices": [24, 24]},
    "phase": {"random_phase": False},
    "grey values": {"intensity": "foreground"},
}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_each_ingredient_changes_what_the_network_says(ablation: str) -> None:
    first = built(make("brain-clinical2d", TINY), seed=0)
    said = []
    for options in ({}, ABLATIONS[ablation]):
        phase = network(make("brain-clinical2d", {**TINY, "dropout": 0.0, **options}))
        module = phase.build(seed=0).train()
        module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in first.items()})
        changed = phase.training_batch(batch(VOLUME, VOLUME, **options), generator=torch.Generator().manual_seed(0))
        said.append(phase.output(module, changed).detach())
    assert not torch.allclose(said[0], said[1], atol=1e-3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"thickness_mm": [7.0, 5.0]}, "the least first"),
        ({"thickness_mm": [1.0, 5.0]}, "from 2 to 15"),
        ({"gap_mm": [-1.0, 2.0]}, "from 0 to 15"),
        ({"slices": [18, 40]}, "slices of shape"),
        ({"slices": [20, 18]}, "the fewest first"),
        ({"up_mm": 3.0}, "at most half of the thinnest slice, 2.5 mm"),
        ({"shape": [16, 20, 12]}, "three numbers from 16 to 256"),
        ({"coarsest_mm": 11.0}, "less than or equal to 10"),
    ],
)
def test_a_protocol_that_cannot_be_is_refused_with_its_mend(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        make("brain-clinical2d", {**TINY, **options})


def test_nothing_that_a_campaign_may_ask_makes_a_volume_larger_than_brain_sfcn_s() -> None:
    largest = make("brain-clinical2d", {"shape": [256, 256, 256], "up_mm": 0.75})
    assert np.prod(largest.shapes()["volume"]) <= 256**3


def test_steps_on_simulated_slices_lower_the_loss() -> None:
    phase = network(make("brain-clinical2d", TINY))
    module = phase.build(seed=0).train()
    of = batch(*(head((24, 28, 80), (7.5, 7.5, 2.4), cavity=0.5 + 0.5 * k) for k in range(4)))
    generator, losses = torch.Generator().manual_seed(0), []
    optimiser = torch.optim.Adam(module.parameters(), lr=3e-3)
    torch.manual_seed(0)
    for _ in range(10):
        changed = phase.training_batch(of, generator=generator)
        optimiser.zero_grad()
        loss = phase.loss(phase.output(module, changed), changed)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < losses[0] - 0.3


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_one_step_at_full_size(norm: str) -> None:
    """With the phase's smallest batch: one patient with GroupNorm, two with BatchNorm."""
    estimator = make("brain-clinical2d", {"norm": norm})
    phase = network(estimator)
    count = phase.smallest_batch + (norm == "batch")
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.rand(count, *shape, generator=generator) for name, shape in estimator.shapes().items()}
    assert inputs["t1w"].shape == (count, 1, 160, 192, 32)
    module = phase.build(seed=0).train()
    before = {name: value.clone() for name, value in module.named_parameters()}
    of = Batch(inputs, {}, {"age_years": torch.linspace(40, 70, count)})
    changed = phase.training_batch(of, generator=generator)
    loss = phase.loss(phase.output(module, changed), changed)
    loss.backward()
    torch.optim.SGD(module.parameters(), lr=0.01).step()
    assert np.isfinite(loss.item())
    assert not torch.equal(before["classifier.conv_6.weight"], module.classifier.conv_6.weight)
