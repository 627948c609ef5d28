"""A mammogram-like picture, drawn from the signs of a biological age.

It looks like a mammogram and is none: a breast of fat with islands of glandular tissue, the pectoral muscle where the
view has it, strands and vessels. What changes with age: the islands become fewer (density falls, by ACR A to D) and
coarser, and the walls of the arteries calcify. How strongly each changes is our own choice. Women of one age differ
much more in density than in the other signs, as real ones do, so that the mean grey value alone tells little of age.

Notation: image (H, W); x from the chest wall, y downwards from the middle, in mm. A sign's strength is a number a = 0
at 40 years and 1 at 75.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import ndtri

FloatImage = NDArray[np.float32]
View = Literal["CC", "MLO"]

SIGN_SCATTER_YEARS = 1.5
"""SD of a sign of age about its course, independent from sign to sign and woman to woman."""
DENSITY_SCATTER_YEARS = 22.0
"""The same of density."""
_ACR_BOUNDS = (0.15, 0.35, 0.60)
"""Parts of the breast that are dense, between A, B, C and D."""


@dataclass(frozen=True)
class BreastSigns:
    """How old each sign of age looks, in years."""

    density: float
    coarseness: float
    vessels: float

    @classmethod
    def of(cls, biological_age_years: float, *, rng: np.random.Generator) -> BreastSigns:
        """Draw the signs of one woman."""
        scatter = np.array([DENSITY_SCATTER_YEARS, SIGN_SCATTER_YEARS, SIGN_SCATTER_YEARS])
        return cls(*(biological_age_years + scatter * rng.standard_normal(3)))

    @property
    def dense_part(self) -> float:
        """Part of the breast's disc that is dense: 0.55 at 40 years, 0.15 at 75."""
        return float(np.clip(0.55 - 0.40 * _strength(self.density), 0.04, 0.85))

    @property
    def acr(self) -> int:
        """Density by ACR, 1 to 4 for A to D."""
        return 1 + int(np.searchsorted(_ACR_BOUNDS, self.dense_part))


@dataclass(frozen=True)
class BreastBuild:
    """What differs between women and has nothing to do with age: size, shape and tissue."""

    depth_mm: float
    half_height_mm: float
    fat: float

    @classmethod
    def of(cls, *, rng: np.random.Generator) -> BreastBuild:
        """Draw one woman's build."""
        normal = rng.standard_normal(3)
        return cls(
            depth_mm=float(np.clip(85 + 10 * normal[0], 60, 110)),
            half_height_mm=float(np.clip(80 + 8 * normal[1], 60, 100)),
            fat=float(np.clip(0.30 + 0.04 * normal[2], 0.18, 0.42)),
        )


def _strength(age_years: float) -> float:
    return (age_years - 40.0) / 35.0


def render_view(
    signs: BreastSigns,
    build: BreastBuild,
    *,
    view: View,
    shape: tuple[int, int],
    spacing_mm: float,
    rng: np.random.Generator,
) -> FloatImage:
    """Density of one view, (H, W) float32, 0 in air to below 1, chest wall on the left; brighter is denser.

    Each call draws another position, other islands and other vessels of the same breast.
    """
    rows, columns = shape
    shift = 3.0 * rng.standard_normal()
    y = ((np.arange(rows, dtype=np.float32) - (rows - 1) / 2) * spacing_mm - np.float32(shift))[:, None]
    x = ((np.arange(columns, dtype=np.float32) + 0.5) * spacing_mm)[None, :]
    depth = build.depth_mm * (1 + 0.04 * rng.standard_normal())
    droop = 14.0 if view == "MLO" else 2.0
    tilted = y - np.float32(droop) * (x / np.float32(depth))
    r = np.sqrt((x / np.float32(depth)) ** 2 + (tilted / np.float32(build.half_height_mm)) ** 2)
    rim_mm = (1 - r) * np.float32(min(depth, build.half_height_mm))
    inside = _edge(rim_mm, 1.0)
    thickness = np.sqrt(np.clip(1 - r**2, 0, 1)) ** np.float32(0.4)
    tissue = np.full(shape, build.fat, dtype=np.float32)
    disc = _edge(rim_mm - 12.0, 4.0) * _edge(x - 6.0, 4.0)
    islands = _islands(signs, shape, spacing_mm, rng)
    tissue += 0.30 * disc * islands
    tissue += 0.05 * _band(shape, 4.0 / spacing_mm, rng) * disc
    tissue += _vessels(signs, x, y, depth, build.half_height_mm, rng) * _edge(rim_mm - 6.0, 3.0)
    density = inside * thickness * tissue
    if view == "MLO":
        # The pectoral muscle: a triangle at the top of the chest wall.
        border = np.float32(38.0 + 4.0 * rng.standard_normal()) - (y + np.float32(build.half_height_mm)) * np.float32(
            0.45
        )
        density = np.maximum(density, inside * _edge(border - x, 1.5) * np.float32(0.62))
    return np.asarray(np.clip(density, 0, 0.98), dtype=np.float32)


def _edge(inside_mm: FloatImage, softness_mm: float) -> FloatImage:
    """1 well inside (positive distance), 0 outside, a logistic edge between."""
    return np.asarray(0.5 + 0.5 * np.tanh(inside_mm / np.float32(2 * softness_mm)), dtype=np.float32)


def _band(shape: tuple[int, int], scale_pixels: float, rng: np.random.Generator) -> FloatImage:
    """Noise of one scale, mean about 0 and SD 1."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    band = gaussian_filter(noise, scale_pixels) - gaussian_filter(noise, 2 * scale_pixels)
    return np.asarray(band / band.std(), dtype=np.float32)


def _islands(signs: BreastSigns, shape: tuple[int, int], spacing_mm: float, rng: np.random.Generator) -> FloatImage:
    """Glandular tissue, 0 to 1: so much of the disc as the density says, in islands of a size that grows with age."""
    size_mm = 4.0 * np.exp(1.0 * np.clip(_strength(signs.coarseness), -0.5, 1.5))
    above = _band(shape, float(size_mm) / spacing_mm, rng) - np.float32(ndtri(1 - signs.dense_part))
    return np.asarray(0.5 + 0.5 * np.tanh(2.5 * above), dtype=np.float32)


def _vessels(
    signs: BreastSigns, x: FloatImage, y: FloatImage, depth: float, half: float, rng: np.random.Generator
) -> FloatImage:
    """A few arteries towards the nipple; their walls brighten as they calcify."""
    calcium = 0.02 + 0.24 * max(_strength(signs.vessels) + 0.3, 0.0)
    shadow: FloatImage = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=np.float32)
    for k in range(4):
        start = half * (-0.75 + 0.5 * k + 0.12 * rng.standard_normal())
        phase, bend = 2 * np.pi * rng.random(), 4.0 + 2.0 * rng.random()
        course = start * (1 - x / depth) + bend * np.sin(x / 11.0 + phase)
        shadow = np.maximum(shadow, np.exp(-(((y - course) / 1.8) ** 2)))
    return np.asarray(calcium * shadow, dtype=np.float32)
