"""One person as the phantoms know them: how old each sign of age looks, and how they are built and stood."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

SIGN_SCATTER_YEARS = 2.5
"""Standard deviation of each sign of age about its course, independent from sign to sign and person to person."""


@dataclass(frozen=True)
class Signs:
    """How old each sign of age looks, in years; all of them scatter about the biological age."""

    heart: float
    aorta: float
    calcium: float
    bone: float
    cartilage: float
    kyphosis: float
    markings: float
    apex: float

    @classmethod
    def of(
        cls, biological_age_years: float, *, rng: np.random.Generator, scatter_years: float = SIGN_SCATTER_YEARS
    ) -> Signs:
        """Draw the signs of one person."""
        return cls(*(biological_age_years + scatter_years * rng.standard_normal(len(fields(cls)))))


@dataclass(frozen=True)
class Build:
    """What differs between people, and between two pictures of one, and has nothing to do with age.

    Parameters
    ----------
    size, width
        Factors on the whole chest and on its width.
    shift_x_mm, shift_y_mm, tilt_rad
        Where and how straight the patient stood.
    rotation
        About the body's long axis, −1 to 1: moves the midline against the ribs.
    rib_start_mm, rib_pitch_mm, rib_slope
        Where the first rib is, the distance between ribs, and a factor on how steeply they fall.
    soft_tissue
        Factor on the thickness of the chest wall.
    inspiration
        Depth of breath, in standard deviations.
    stomach
        How much gas is under the left dome, 0 to 1.
    texture_seed
        Of the lung's fine texture.
    """

    is_male: bool
    size: float
    width: float
    shift_x_mm: float
    shift_y_mm: float
    tilt_rad: float
    rotation: float
    rib_start_mm: float
    rib_pitch_mm: float
    rib_slope: float
    soft_tissue: float
    inspiration: float
    stomach: float
    texture_seed: int

    @classmethod
    def of(cls, *, is_male: bool, rng: np.random.Generator) -> Build:
        """Draw one person's build and how they stood."""
        normal = rng.standard_normal(9)
        return cls(
            is_male=is_male,
            size=float((1.17 if is_male else 1.11) + 0.025 * normal[0]),
            width=float(1.0 + 0.022 * normal[1]),
            shift_x_mm=float(4.0 * normal[2]),
            shift_y_mm=float(4.0 * normal[3]),
            tilt_rad=float(0.018 * normal[4]),
            rotation=float(np.clip(0.35 * normal[5], -1, 1)),
            rib_start_mm=float(rng.uniform(-6, 6)),
            rib_pitch_mm=float(25.5 + 1.0 * normal[6]),
            rib_slope=float(1.0 + 0.08 * normal[7]),
            soft_tissue=float(np.clip(1.0 + 0.07 * normal[8], 0.75, 1.25)),
            inspiration=float(np.clip(rng.standard_normal(), -2, 2)),
            stomach=float(rng.random()),
            texture_seed=int(rng.integers(2**32)),
        )
