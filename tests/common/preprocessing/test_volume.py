"""A volume to a sample: grid, grey values, and what is refused in one line."""

import dataclasses

import numpy as np
import pytest
import torch

from fedage.common.preprocessing.image import Image, SampleRefused
from fedage.common.preprocessing.volume import VolumeGrid, volume_sample

GRID = VolumeGrid(shape=(32, 40, 32), spacing_mm=(4.0,) * 3, coarsest_mm=(6.0,) * 3, intensity="mean")


def image(voxels: np.ndarray, spacing_mm: tuple[float, ...] = (4.0, 4.0, 4.0), orientation: str = "RAS") -> Image:
    return Image(
        pixels=np.asarray(voxels, dtype=np.float32), spacing_mm=spacing_mm, modality="MR", orientation=orientation
    )


def ball(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], *, radius_mm: float = 50.0) -> np.ndarray:
    """A soft ball in the middle, brighter to the right (high i)."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    i, j, k = np.meshgrid(*axes, indexing="ij")
    inside = 1 / (1 + np.exp((np.sqrt(i**2 + j**2 + k**2) - radius_mm) / 4))
    return 100 * inside * (1 + i / 200) + 1


def test_the_published_order_divides_by_the_mean_of_the_whole_and_then_crops() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.uniform(0, 1000, (54, 66, 54)).astype(np.float32)
    grid = VolumeGrid(shape=(32, 40, 32), spacing_mm=(1.0,) * 3, coarsest_mm=(3.0,) * 3, intensity="mean")
    expected = (voxels / voxels.mean(dtype=np.float64))[11:-11, 13:-13, 11:-11]
    np.testing.assert_allclose(volume_sample(image(voxels, (1.0, 1.0, 1.0)), grid)[0], expected, rtol=1e-6)


def test_a_smaller_volume_is_padded_with_background() -> None:
    voxels = ball((28, 40, 30), (4.0, 4.0, 4.0))
    sample = volume_sample(image(voxels), GRID)[0]
    np.testing.assert_allclose(sample[2:-2, :, 1:-1], voxels / voxels.mean(), rtol=1e-5)
    assert not sample[:2].any()
    assert not sample[-2:].any()


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (1.0, 2.0, 4.0), (3.0, 3.0, 1.5), (5.0, 4.0, 4.0)])
def test_the_same_head_at_another_spacing_is_the_same_sample(spacing_mm: tuple[float, float, float]) -> None:
    reference = volume_sample(image(ball((48, 48, 48), (4.0, 4.0, 4.0))), GRID)[0]
    shape = tuple(round(192 / mm) for mm in spacing_mm)
    sample = volume_sample(image(ball(shape, spacing_mm), spacing_mm), GRID)[0]
    # A head that lies half a voxel elsewhere on a grid of 4 mm is another by that much at its edge.
    assert np.corrcoef(sample.ravel(), reference.ravel())[0, 1] > 0.98
    assert abs(sample.mean() / reference.mean() - 1) < 0.05


def test_voxels_of_a_finer_volume_are_means_and_no_samples() -> None:
    noise = 100 + np.random.default_rng(1).normal(0, 10, (64, 80, 64))
    sample = volume_sample(image(noise, (2.0, 2.0, 2.0)), GRID)[0]
    inner = sample[4:-4, 4:-4, 4:-4]
    assert inner.std() < 0.5 * (noise / noise.mean()).std()


def test_foreground_has_mean_0_and_sd_1_and_background_stays() -> None:
    voxels = ball((32, 40, 32), (4.0, 4.0, 4.0)) - 1
    voxels[voxels < 5] = 0
    sample = volume_sample(image(voxels), dataclasses.replace(GRID, intensity="foreground"))[0]
    inside = sample[voxels > 0]
    assert abs(inside.mean()) < 1e-5
    assert abs(inside.std() - 1) < 1e-5
    assert not sample[voxels == 0].any()


@pytest.mark.parametrize("gain", [0.01, 3.0, 700.0])
def test_gain_changes_nothing(gain: float) -> None:
    voxels = ball((32, 40, 32), (4.0, 4.0, 4.0))
    np.testing.assert_allclose(
        volume_sample(image(gain * voxels), GRID), volume_sample(image(voxels), GRID), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("voxels", "spacing_mm", "orientation", "code"),
    [
        (np.ones((64, 64)), (4.0, 4.0), "", "not-a-volume"),
        (ball((32, 40, 32), (4, 4, 4)), (4.0, 4.0, 4.0), "", "not-a-volume"),
        (ball((32, 40, 32), (4, 4, 4)), (4.0, 4.0), "RAS", "bad-spacing"),
        (ball((32, 40, 32), (4, 4, 4)), (4.0, float("nan"), 4.0), "RAS", "bad-spacing"),
        (ball((32, 40, 32), (4, 4, 4)), (4.0, 0.0, 4.0), "RAS", "bad-spacing"),
        (ball((32, 40, 24), (4, 4, 7)), (4.0, 4.0, 7.0), "RAS", "too-coarse"),
        (ball((32, 40, 32), (4, 4, 4)), (1.0, 1.0, 1.0), "RAS", "too-small"),
        (ball((32, 40, 10), (4, 4, 4)), (4.0, 4.0, 4.0), "RAS", "too-small"),
        (np.full((32, 40, 32), 7.0), (4.0, 4.0, 4.0), "RAS", "blank-image"),
        (np.full((32, 40, 32), np.nan), (4.0, 4.0, 4.0), "RAS", "not-finite"),
        (np.where(ball((32, 40, 32), (4, 4, 4)) > 90, np.inf, 1.0), (4.0, 4.0, 4.0), "RAS", "not-finite"),
        (ball((32, 40, 32), (4, 4, 4)) - 500, (4.0, 4.0, 4.0), "RAS", "blank-image"),
    ],
)
def test_what_is_no_head_is_refused_with_a_code(
    voxels: np.ndarray, spacing_mm: tuple[float, ...], orientation: str, code: str
) -> None:
    with pytest.raises(SampleRefused) as refused:
        volume_sample(image(voxels, spacing_mm, orientation), GRID)
    assert refused.value.code == code
    assert len(str(refused.value).splitlines()) == 1


def test_one_voxel_that_is_no_number_is_enough() -> None:
    voxels = ball((32, 40, 32), (4.0, 4.0, 4.0))
    voxels[3, 4, 5] = np.nan
    with pytest.raises(SampleRefused, match="not-finite"):
        volume_sample(image(voxels), GRID)


def test_the_number_of_threads_changes_no_bit() -> None:
    voxels = ball((60, 70, 61), (2.0, 2.5, 2.1)) + np.random.default_rng(2).normal(size=(60, 70, 61))
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            made.append(volume_sample(image(voxels, (2.0, 2.5, 2.1)), GRID))
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(sample, made[0]) for sample in made)
