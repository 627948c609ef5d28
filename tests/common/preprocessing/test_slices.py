"""Simulated thick slices: the ramp and the numerical integral as oracles, what is drawn, and what is normalised."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fedage.common.preprocessing.slices import (
    SliceProtocol,
    of_foreground,
    of_mean_one,
    profile_sd_mm,
    simulated_slices,
    slice_weights,
)

USUAL = SliceProtocol(thickness_mm=(5.0, 7.0), gap_mm=(0.0, 2.0), slices=(18, 30))


def drawn(count: int, *, seed: int = 0, protocol: SliceProtocol = USUAL) -> torch.Tensor:
    return protocol.drawn(count, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("thickness_mm", "sd_mm"), [(5.0, 2.1233), (6.0, 2.5480), (7.0, 2.9726)])
def test_the_profile_has_the_thickness_as_its_full_width_at_half_maximum(thickness_mm: float, sd_mm: float) -> None:
    assert float(profile_sd_mm(torch.tensor(thickness_mm))) == pytest.approx(sd_mm, abs=5e-5)
    blurred = float(profile_sd_mm(torch.tensor(thickness_mm), voxel_mm=2.0))
    assert blurred == pytest.approx(np.sqrt(thickness_mm**2 - 4) / 2.35482, rel=1e-5)


@pytest.mark.parametrize("up_mm", [1.0, 2.0, 2.5])
@pytest.mark.parametrize("with_profile", [True, False])
@pytest.mark.parametrize(
    ("thickness_mm", "gap_mm"), [((5.0, 5.0), (0.0, 0.0)), ((6.0, 6.0), (1.2, 1.2)), ((5.0, 7.0), (0.0, 2.0))]
)
def test_of_a_linear_ramp_slices_are_the_ramp_at_their_centres(
    up_mm: float, with_profile: bool, thickness_mm: tuple[float, float], gap_mm: tuple[float, float]
) -> None:
    protocol = SliceProtocol(thickness_mm=thickness_mm, gap_mm=gap_mm, slices=(18, 20), with_profile=with_profile)
    voxels = round(300 / up_mm)
    heights_mm = (torch.arange(voxels, dtype=torch.float64) - (voxels - 1) / 2) * up_mm
    places = drawn(6, protocol=protocol)
    ramp = (3.0 + 0.7 * heights_mm).expand(6, 1, 2, 2, voxels)
    made = simulated_slices(ramp, places, protocol, up_mm=up_mm, most=24).numpy()
    for one, (thickness, gap, number, phase) in zip(made, places.double().numpy(), strict=True):
        apart = np.interp(thickness, (0, 1), thickness_mm) + np.interp(gap, (0, 1), gap_mm)
        count = min(18 + int(number * 3), 20)
        centres_mm = (np.arange(count) - (count - 1) / 2 + phase - 0.5) * apart
        first = (24 - count) // 2
        found = one[0, 0, 0]
        np.testing.assert_allclose(found[first : first + count], 3.0 + 0.7 * centres_mm, atol=1e-4)
        assert not found[:first].any()
        assert not found[first + count :].any()


@pytest.mark.parametrize(("centre", "sd"), [(20.3, 2.1), (17.0, 0.4), (11.75, 5.0)])
def test_weights_are_the_integral_of_the_profile_over_a_volume_linear_between_voxels(centre: float, sd: float) -> None:
    volume = np.random.default_rng(0).uniform(size=40)
    weights = slice_weights(torch.tensor([[centre]]), torch.tensor([sd]), voxels=40)[0, 0].numpy()
    z = np.linspace(centre - 8 * sd, centre + 8 * sd, 400_001)
    profile = np.exp(-(((z - centre) / sd) ** 2) / 2)
    inside = (z >= 0) & (z <= 39)
    expected = (profile * np.interp(z, np.arange(40), volume))[inside].sum() / profile[inside].sum()
    assert weights @ volume == pytest.approx(expected, abs=2e-3 if centre < 16 else 1e-5)
    assert weights.sum() == pytest.approx(1)


def test_exams_have_protocols_of_their_own_within_the_ranges() -> None:
    volumes = torch.ones(300, 1, 2, 2, 192)
    made = simulated_slices(volumes, drawn(300), USUAL, up_mm=1.0, most=32)
    counts = (made[:, 0, 0, 0] > 0).sum(dim=1)
    assert counts.max() <= 30
    assert len(set(counts.tolist())) > 8
    again = simulated_slices(volumes, drawn(300), USUAL, up_mm=1.0, most=32)
    assert torch.equal(made, again)
    assert made[made > 0].sub(1).abs().max() < 1e-6


CHANGES: dict[str, dict[str, Any]] = {
    "profile": {"with_profile": False},
    "thickness": {"thickness_mm": (5.0, 5.0)},
    "gap": {"gap_mm": (0.0, 0.0)},
    "number": {"slices": (18, 18)},
    "phase": {"random_phase": False},
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_part_of_the_protocol_changes_slices(change: str) -> None:
    volumes = torch.rand(4, 1, 4, 4, 96, generator=torch.Generator().manual_seed(3))
    protocol = dataclasses.replace(USUAL, **CHANGES[change])
    usual = simulated_slices(volumes, drawn(4), USUAL, up_mm=2.0, most=32)
    other = simulated_slices(volumes, drawn(4, protocol=protocol), protocol, up_mm=2.0, most=32)
    assert not torch.allclose(usual, other, atol=1e-2)


def test_a_volume_that_is_predicted_has_no_draw() -> None:
    places = USUAL.nominal()
    volume = torch.arange(101.0).expand(1, 1, 1, 1, 101)
    made = simulated_slices(volume, places, USUAL, up_mm=2.0, most=32)[0, 0, 0, 0]
    acquired = made[made != 0]
    # 30 slices 7 mm apart reach beyond 202 mm of volume: those that lie inside, evenly about its middle.
    np.testing.assert_allclose(acquired.diff()[3:-3], 3.5, atol=1e-3)
    assert float(acquired.mean()) == pytest.approx(50.0, abs=1e-3)


@pytest.mark.parametrize("gain", [0.02, 1.0, 450.0])
@pytest.mark.parametrize("empty", [0, 5, 9])
def test_gain_and_empty_slices_change_no_grey_value(gain: float, empty: int) -> None:
    slices = torch.rand(2, 1, 8, 8, 12, generator=torch.Generator().manual_seed(1)) + 0.1
    padded = torch.nn.functional.pad(slices, (empty, 0))
    for normalised in (of_mean_one, of_foreground):
        torch.testing.assert_close(normalised(gain * padded)[..., empty:], normalised(slices), rtol=1e-4, atol=1e-4)
        assert not normalised(gain * padded)[..., :empty].any()
    assert of_mean_one(padded)[..., empty:].mean().item() == pytest.approx(1, abs=1e-5)
