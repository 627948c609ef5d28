"""A chest X-ray-like picture of an adult, drawn from a biological age.

It looks like a radiograph and is none: shadows of simple shapes, in millimetres, brighter where denser. The signs of age
are those a reader knows (cardiothoracic ratio, unfolded and calcified aortic arch, demineralised bone, calcified costal
cartilage, kyphosis, coarse markings, apical caps). How strongly each changes with age is our own choice, and each scatters
about its course from person to person. Size, position, rotation, ribs and soft tissue vary too and say nothing of age.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from fedage.deploy.demo.chest import Chest, FloatImage

SIGN_SCATTER_YEARS = 3.0
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
            size=float((1.18 if is_male else 1.10) + 0.035 * normal[0]),
            width=float(1.0 + 0.03 * normal[1]),
            shift_x_mm=float(5.0 * normal[2]),
            shift_y_mm=float(5.0 * normal[3]),
            tilt_rad=float(0.018 * normal[4]),
            rotation=float(np.clip(0.4 * normal[5], -1, 1)),
            rib_start_mm=float(rng.uniform(-6, 6)),
            rib_pitch_mm=float(25.5 + 1.0 * normal[6]),
            rib_slope=float(1.0 + 0.12 * normal[7]),
            soft_tissue=float(np.clip(1.0 + 0.10 * normal[8], 0.7, 1.3)),
            inspiration=float(np.clip(rng.standard_normal(), -2, 2)),
            stomach=float(rng.random()),
            texture_seed=int(rng.integers(2**32)),
        )


def render(signs: Signs, build: Build, *, shape: tuple[int, int], spacing_mm: float) -> FloatImage:
    """Density of the projected chest, (H, W) float32 from 0 (air outside) to below 1, brighter is denser."""
    chest = Chest(signs, build, shape, spacing_mm)
    lungs = chest.lungs()
    middle = chest.middle()
    thickness = 0.85 * build.soft_tissue * chest.body() * (1 - 0.76 * lungs)
    thickness += middle + chest.breasts() + chest.abdomen() + chest.scapulae()
    thickness += chest.spine() + chest.ribs() + chest.clavicles()
    # Markings and caps belong to the lung that is seen beside the middle, not in front of it.
    thickness += lungs * np.clip(1 - 2.2 * middle, 0, 1) * (chest.markings() + chest.apical_caps())
    return np.asarray(1 - np.exp(-1.15 * np.maximum(thickness, 0)), dtype=np.float32)
