"""A head as T1-weighted MRI shows it, drawn from the signs of a biological age; nobody's head.

Shadows of simple shapes: scalp, skull, fluid, a folded ribbon of grey matter around white matter, deep grey matter, two
lateral ventricles with horns and a third one. The signs of age are those a reader knows: ventricles widen, the ribbon
thins, furrows open, white matter pales beside the ventricles. How strongly each changes with age is our own choice.

Notation: volume (I, J, K), axes to the patient's right, front and up; x, y, z in mm from the middle of the head, for a
head of size 1. The strength of each sign of age is a number a = 0 at 40 years and 1 at 85.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatVolume = NDArray[np.float32]
SIGN_SCATTER_YEARS = 2.0
"""SD of each sign of age about its course, independent from sign to sign and person to person."""


@dataclass(frozen=True, kw_only=True)
class ThickSlices:
    """A clinical 2D protocol: thickness of a slice (FWHM of its profile) and distance of slices, in mm."""

    thickness_mm: float
    apart_mm: float


def strength(age_years: float) -> float:
    """Strength of a sign that looks `age_years` old: 0 at 40, 1 at 85, a little beyond both for the gaps."""
    return float(np.clip((age_years - 40.0) / 45.0, -0.5, 1.5))


@dataclass(frozen=True)
class BrainSigns:
    """How old each sign of age looks, in years; all of them scatter about the biological age."""

    ventricles: float
    third_ventricle: float
    ribbon: float
    furrows: float
    spots: float

    @classmethod
    def of(
        cls, biological_age_years: float, *, rng: np.random.Generator, scatter_years: float = SIGN_SCATTER_YEARS
    ) -> BrainSigns:
        """Draw the signs of one person."""
        return cls(*(biological_age_years + scatter_years * rng.standard_normal(len(fields(cls)))))


@dataclass(frozen=True)
class Head:
    """What differs between people, and between two scans of one, and has nothing to do with age.

    Parameters
    ----------
    size
        Factors along x, y and z.
    shift_mm
        Where the head lay.
    turn_rad
        About x, y and z: how it lay.
    tissue
        Grey values of scalp, skull, fluid, grey and white matter, of this person and sequence.
    ventricle_tilt_rad, ventricle_place_mm, ventricle_skew
        How this person's ventricles lie, whatever their width; the left one is wider by the skew.
    folds
        Phase and number of the furrows, for three directions.
    bias
        Coefficients of a smooth field that brightens parts of the head, (9,).
    """

    size: tuple[float, ...]
    shift_mm: tuple[float, ...]
    turn_rad: tuple[float, ...]
    tissue: tuple[float, ...]
    ventricle_tilt_rad: float
    ventricle_place_mm: tuple[float, ...]
    ventricle_skew: float
    folds: tuple[float, ...]
    bias: tuple[float, ...]

    @classmethod
    def of(cls, *, is_male: bool, rng: np.random.Generator) -> Head:
        """Draw one person's head and how it lay."""

        def normal(count: int, sd: float, mean: float = 0.0) -> tuple[float, ...]:
            return tuple(float(value) for value in mean + sd * rng.standard_normal(count))

        whole = (1.03 if is_male else 0.97) + 0.03 * rng.standard_normal()
        return cls(
            size=tuple(float(whole * factor) for factor in normal(3, 0.025, 1.0)),
            shift_mm=normal(3, 7.0),
            turn_rad=normal(3, 0.08),
            tissue=(
                float(0.9 + 0.12 * rng.standard_normal()),
                0.06,
                float(np.clip(0.17 + 0.05 * rng.standard_normal(), 0.05, 0.3)),
                float(np.clip(0.52 + 0.05 * rng.standard_normal(), 0.38, 0.62)),
                float(0.80 + 0.06 * rng.standard_normal()),
            ),
            ventricle_tilt_rad=float(0.12 * rng.standard_normal()),
            ventricle_place_mm=normal(2, 5.0),
            ventricle_skew=float(0.12 * rng.standard_normal()),
            folds=(*(float(v) for v in rng.uniform(0, 2 * np.pi, 3)), *normal(3, 0.6, 7.0)),
            bias=normal(9, 0.07),
        )


def render(
    signs: BrainSigns,
    head: Head,
    *,
    shape: tuple[int, int, int],
    spacing_mm: float,
    up_mm: NDArray[np.floating[Any]] | None = None,
) -> FloatVolume:
    """Signal of the head, (I, J, K) float32 from 0 (air) to about 1; planes at heights `up_mm` (K,) if given."""
    x, y, z = _places(head, shape, spacing_mm, up_mm)
    soft = np.float32(0.45 * spacing_mm)

    def inside(radius: FloatVolume, mm: float) -> FloatVolume:
        """1 where an ellipsoid's relative radius is below 1, with an edge as soft as a voxel; `mm` is its scale."""
        return np.asarray(0.5 - 0.5 * np.tanh((radius - 1) * np.float32(mm) / soft), dtype=np.float32)

    scalp_v, skull_v, fluid_v, grey_v, white_v = head.tissue
    # 1 at the outer face of the brain's room.
    r = np.asarray(np.sqrt((x / 74) ** 2 + (y / 92) ** 2 + (z / 80) ** 2), dtype=np.float32)
    ribbon, furrow = strength(signs.ribbon), strength(signs.furrows)
    # Furrows: folds of the brain's surface in three directions, deeper with age.
    a, b, c, na, nb, nc = head.folds
    folds = np.abs(np.sin(na * x / 25 + a) * np.sin(nb * y / 25 + b) + np.sin(nc * z / 25 + c) * 0.6)
    depth = np.float32(0.035 + 0.055 * furrow) * np.minimum(folds, 1.0)
    pial = r + depth
    thickness = 0.105 - 0.035 * ribbon
    volume = scalp_v * inside(r / np.float32(1.20), 95.0)
    volume += (skull_v - scalp_v) * inside(r / np.float32(1.12), 90.0)
    volume += (fluid_v - skull_v) * inside(r / np.float32(1.03), 85.0)
    brain = inside(pial / np.float32(0.985), 82.0)
    volume += (grey_v - fluid_v) * brain
    white = inside(pial / np.float32(0.985 - thickness), 72.0)
    volume += (white_v - grey_v) * white
    ventricles, around = _ventricles(signs, head, (x, y, z), inside)
    deep = inside(np.sqrt(((np.abs(x) - 22) / 9) ** 2 + ((y - 4) / 20) ** 2 + ((z - 2) / 12) ** 2), 10.0)
    volume += (grey_v - volume) * 0.8 * deep * white
    spots = max(strength(signs.spots) + 0.2, 0.0)
    volume -= np.float32(0.16 * spots) * around * white * np.minimum(folds, 1.0)
    volume += (fluid_v - volume) * ventricles
    return np.asarray(np.maximum(volume * _bias(head, x, y, z), 0), dtype=np.float32)


def render_slices(
    signs: BrainSigns, head: Head, *, shape: tuple[int, int, int], spacing_mm: float, slices: ThickSlices, phase: float
) -> FloatVolume:
    """Signal of thick axial slices, (I, J, S) float32, the stack shifted up by `phase` of the slices' distance.

    A slice is the mean of the head under a Gaussian of the slice's thickness as full width at half maximum, by
    Gauss-Hermite quadrature: five planes drawn for each.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    centres_mm = (np.arange(shape[2]) - (shape[2] - 1) / 2 + phase) * slices.apart_mm
    sd_mm = slices.thickness_mm / np.sqrt(8 * np.log(2))
    up_mm = (centres_mm[:, None] + sd_mm * nodes).ravel()
    planes = render(signs, head, shape=(*shape[:2], up_mm.size), spacing_mm=spacing_mm, up_mm=up_mm)
    of_slices = planes.reshape(*shape, nodes.size)
    return np.asarray(of_slices @ (weights / weights.sum()), dtype=np.float32)


def _places(
    head: Head, shape: tuple[int, int, int], spacing_mm: float, up_mm: NDArray[np.floating[Any]] | None
) -> tuple[FloatVolume, FloatVolume, FloatVolume]:
    """Coordinates of the voxels in the head's own axes, mm for a head of size 1."""
    axes = [
        (np.arange(count, dtype=np.float32) - np.float32((count - 1) / 2)) * np.float32(spacing_mm) - np.float32(shift)
        for count, shift in zip(shape, head.shift_mm, strict=True)
    ]
    if up_mm is not None:
        axes[2] = np.asarray(up_mm - head.shift_mm[2], dtype=np.float32)
    turn = np.eye(3)
    for axis, angle in enumerate(head.turn_rad):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[other, other] = np.cos(angle)
        step[one, other], step[other, one] = -np.sin(angle), np.sin(angle)
        turn = step @ turn
    scaled = (turn / np.array(head.size)[:, None]).astype(np.float32)
    i, j, k = axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]
    x, y, z = (row[0] * i + row[1] * j + row[2] * k for row in scaled)
    return x, y, z


def _ventricles(
    signs: BrainSigns,
    head: Head,
    places: tuple[FloatVolume, FloatVolume, FloatVolume],
    inside: Callable[[FloatVolume, float], FloatVolume],
) -> tuple[FloatVolume, FloatVolume]:
    """The ventricles, and the white matter around them, 1 inside."""
    x, y, z = places
    wide, third = strength(signs.ventricles), strength(signs.third_ventricle)
    lift, front = head.ventricle_place_mm
    cos, sin = np.float32(np.cos(head.ventricle_tilt_rad)), np.float32(np.sin(head.ventricle_tilt_rad))
    dy, dz = y - np.float32(front), z - np.float32(12 + lift)
    along, across = cos * dy + sin * dz, cos * dz - sin * dy
    total = np.zeros_like(x)
    around = np.zeros_like(x)
    for side in (-1.0, 1.0):
        half = (4.0 + 6.5 * wide) * (1 + side * head.ventricle_skew)
        bow = np.float32(side) * (np.float32(7 + half * 0.6) + along**2 * np.float32(0.006))
        bent = across + along**2 * np.float32(0.006)
        for wider_mm, length_mm in ((0.0, 34 + 4 * wide), (9.0, 46.0)):
            parts = (x - bow, half + wider_mm), (along, length_mm), (bent, 1.35 * half + wider_mm)
            squares = [(part / np.float32(half_mm)) ** 2 for part, half_mm in parts]
            horn = inside(np.sqrt(squares[0] + squares[1] + squares[2]), half + wider_mm)
            if wider_mm:
                around = np.maximum(around, horn)
            else:
                total = np.maximum(total, horn)
    slit = 1.5 + 2.8 * third
    middle = np.sqrt((x / np.float32(slit)) ** 2 + ((y - 2) / 14) ** 2 + ((z + 8) / 13) ** 2)
    return np.maximum(total, inside(middle, slit)), around


def _bias(head: Head, x: FloatVolume, y: FloatVolume, z: FloatVolume) -> FloatVolume:
    """The coils' smooth sensitivity."""
    u, v, w = x / np.float32(95), y / np.float32(110), z / np.float32(100)
    terms = (u, v, w, u * v, u * w, v * w, u * u, v * v, w * w)
    log_field = sum(np.float32(coefficient) * term for coefficient, term in zip(head.bias, terms, strict=True))
    return np.asarray(np.exp(np.clip(log_field, -1, 1)), dtype=np.float32)
