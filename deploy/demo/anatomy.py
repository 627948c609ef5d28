"""A chest X-ray-like picture of an adult, drawn from a biological age.

It looks like a radiograph and is none: path lengths through simple shapes, in millimetres, brighter where denser. The signs of
age are those a reader knows (cardiothoracic ratio, unfolded and calcified aortic arch, demineralised ribs, calcified
costal cartilage, kyphosis, coarse markings, apical caps); how strongly each changes with age is our own choice, and each scatters
about its course from person to person. Size, position, rotation, rib slope and exposure vary too and say nothing of age.

Notation: image (H, W); x to the picture's right, y downwards, both in mm from the middle of the field.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

FloatImage = NDArray[np.float32]

CUE_SCATTER_YEARS = 4.0
"""Standard deviation, in years, of each sign of age about its course: independent from sign to sign and person to person."""


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
        cls, biological_age_years: float, *, rng: np.random.Generator, scatter_years: float = CUE_SCATTER_YEARS
    ) -> Signs:
        """Draw the signs of one person."""
        return cls(*(biological_age_years + scatter_years * rng.standard_normal(len(fields(cls)))))


@dataclass(frozen=True)
class Build:
    """What differs between people and has nothing to do with age."""

    is_male: bool
    size: float
    width: float
    shift_x_mm: float
    shift_y_mm: float
    rotation: float
    """Rotation of the body about its long axis: moves the midline against the ribs, −1 to 1."""
    tilt_rad: float
    rib_start_mm: float
    rib_pitch_mm: float
    rib_slope: float
    soft_tissue: float
    inspiration: float
    texture_seed: int

    @classmethod
    def of(cls, *, is_male: bool, rng: np.random.Generator) -> Build:
        """Draw one person's build and how they stood."""
        return cls(
            is_male=is_male,
            size=float((1.03 if is_male else 0.96) + 0.035 * rng.standard_normal()),
            width=float(1.0 + 0.03 * rng.standard_normal()),
            shift_x_mm=float(6.0 * rng.standard_normal()),
            shift_y_mm=float(6.0 * rng.standard_normal()),
            rotation=float(np.clip(0.4 * rng.standard_normal(), -1, 1)),
            tilt_rad=float(0.02 * rng.standard_normal()),
            rib_start_mm=float(rng.uniform(-6, 6)),
            rib_pitch_mm=float(27.0 + 1.2 * rng.standard_normal()),
            rib_slope=float(1.0 + 0.12 * rng.standard_normal()),
            soft_tissue=float(1.0 + 0.12 * rng.standard_normal()),
            inspiration=float(np.clip(rng.standard_normal(), -2, 2)),
            texture_seed=int(rng.integers(2**32)),
        )


def render(signs: Signs, build: Build, *, shape: tuple[int, int], spacing_mm: float) -> FloatImage:
    """Density of the projected chest, (H, W) float32 between 0 (air outside) and 1 (densest), brighter is denser."""
    chest = _Chest(signs, build, shape, spacing_mm)
    lungs = chest.lungs()
    density = 0.62 * build.soft_tissue * chest.body()
    density *= 1 - 0.66 * lungs
    density += chest.breast_and_arm()
    density += chest.heart()
    density += chest.mediastinum()
    density += chest.spine()
    density += chest.ribs()
    density += chest.clavicles()
    density += lungs * chest.markings()
    density += chest.diaphragm_shade()
    density += chest.apical_caps() * lungs
    return np.clip(density / 1.55, 0, 1).astype(np.float32)


def _unit(age_years: float) -> float:
    """0 at 40 years, 1 at 85; a little beyond both for gaps."""
    return float(np.clip((age_years - 40.0) / 45.0, -0.35, 1.35))


def _edge(distance: FloatImage, softness_mm: float) -> FloatImage:
    """1 well inside (positive distance in mm), 0 outside, a logistic edge between."""
    return np.asarray(1 / (1 + np.exp(np.clip(-distance / softness_mm, -30, 30))), dtype=np.float32)


def _tube(distance: FloatImage, half_width_mm: FloatImage | float) -> FloatImage:
    """A hollow tube seen from the side: a plateau with the brighter rims of its cortex."""
    r2 = (distance / half_width_mm) ** 2
    inside = np.exp(-(r2**3))
    return np.asarray(inside * (0.75 + 0.35 * np.minimum(r2, 1.5)), dtype=np.float32)


class _Chest:
    """The shapes of one chest on one pixel grid."""

    def __init__(self, signs: Signs, build: Build, shape: tuple[int, int], spacing_mm: float) -> None:
        self.signs, self.build, self.spacing_mm = signs, build, spacing_mm
        rows, columns = shape
        y = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2)[:, None] * spacing_mm - build.shift_y_mm
        x = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2)[None, :] * spacing_mm - build.shift_x_mm
        cos, sin = np.float32(np.cos(build.tilt_rad)), np.float32(np.sin(build.tilt_rad))
        # Size scales the grid, so that every shape below is written for one chest.
        self.x: FloatImage = ((cos * x + sin * y) / build.size).astype(np.float32)
        self.y: FloatImage = ((cos * y - sin * x) / build.size).astype(np.float32)
        self.side: FloatImage = np.sign(self.x).astype(np.float32)
        bend = _unit(signs.kyphosis)
        # Kyphosis shortens the chest, rounds it, and projects the clavicles over the apices.
        self.top_mm = -128.0 + 16.0 * bend
        self.base_mm = 92.0 - 14.0 * bend + 5.0 * build.inspiration
        self.half_mm = (126.0 + 7.0 * bend) * build.width
        self.bend = bend
        height = np.clip((self.y - self.top_mm) / (self.base_mm - self.top_mm), 0, 1.3)
        # Half-width of the rib cage at each height: narrow apex, widest two thirds down.
        self.half: FloatImage = (
            self.half_mm * (0.30 + 0.70 * np.sin(np.pi / 2 * np.clip(height, 0, 1) ** (0.62 - 0.10 * bend)))
        ).astype(np.float32)
        self.height: FloatImage = height.astype(np.float32)
        self.midline_mm = 7.0 * build.rotation

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, softness_mm: float, lean: float = 0.0) -> FloatImage:
        """A filled ellipse with soft edge; `lean` shears x by y."""
        dx, dy = self.x - cx - lean * (self.y - cy), self.y - cy
        r = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2)
        return _edge((1 - r) * np.float32(min(rx, ry)), softness_mm)

    def body(self) -> FloatImage:
        """Neck, shoulders and trunk."""
        wall = self.half_mm + 22.0 * self.build.soft_tissue
        trunk = _edge(wall + 10 * self.height - np.abs(self.x), 3.0) * _edge(self.y - self.top_mm - 6.0, 12.0)
        shoulders = _edge(self.y + 132.0 - 16.0 * self.bend - 0.0022 * np.abs(self.x) ** 2.0 * 0.9, 6.0)
        neck = _edge(48.0 - np.abs(self.x), 5.0)
        return np.asarray(np.maximum(np.maximum(trunk * shoulders, neck * 0.9), shoulders * 0.95), dtype=np.float32)

    def dome(self) -> FloatImage:
        """Height of the diaphragm at each x, mm: two domes, the right (picture's left) higher."""
        right = self.x < 0
        centre = np.where(right, -62.0, 66.0)
        flat = 26.0 - 7.0 * self.bend - 2.0 * self.build.inspiration
        level = self.base_mm - np.where(right, 18.0, 8.0)
        return np.asarray(level + flat * np.minimum(((self.x - centre) / 62.0) ** 2, 2.0), dtype=np.float32)

    def lungs(self) -> FloatImage:
        """Both lungs, 1 inside."""
        lateral = self.half - 5.0 - np.abs(self.x - 0.3 * self.midline_mm)
        medial = np.abs(self.x - self.midline_mm) - 20.0 - 12.0 * np.clip(self.height, 0, 1) ** 2
        apex = self.y - self.top_mm - 4.0 - 0.010 * (np.abs(self.x) - 58.0) ** 2 * (np.abs(self.x) > 0)
        inside = _edge(lateral, 2.0) * _edge(medial, 3.0) * _edge(apex, 3.0)
        return np.asarray(inside * _edge(self.dome() - self.y, 1.6), dtype=np.float32)

    def diaphragm_shade(self) -> FloatImage:
        """Abdomen below the domes, denser with depth."""
        below = self.y - self.dome()
        inside = _edge(below, 2.0) * _edge(self.half_mm - 4 - np.abs(self.x), 4.0)
        return np.asarray(inside * (0.16 + 0.10 * np.clip(below / 60.0, 0, 1)), dtype=np.float32)

    def breast_and_arm(self) -> FloatImage:
        """Soft shadows over the lower lung fields, larger in women."""
        weight = (0.035 if self.build.is_male else 0.085) * self.build.soft_tissue
        shade = self.ellipse(-72, 52, 46, 40, 9.0) + self.ellipse(72, 52, 46, 40, 9.0)
        return np.asarray(weight * shade, dtype=np.float32)

    def heart(self) -> FloatImage:
        """The heart's shadow; its width against the chest's is the cardiothoracic ratio."""
        age = _unit(self.signs.heart)
        width = 0.41 + 0.15 * age  # of the inner chest's width
        rx = width * self.half_mm
        cx = self.midline_mm + 0.30 * rx + 2.0
        cy = self.base_mm - 42.0
        body = self.ellipse(cx, cy, rx, 50.0 + 4.0 * age, 3.0, lean=0.32)
        atrium = self.ellipse(self.midline_mm - 14.0, cy + 4.0, 22.0 + 6.0 * age, 38.0, 3.0)
        above = _edge(self.dome() + 24.0 - self.y, 8.0)
        return np.asarray(0.36 * np.maximum(body, atrium) * above, dtype=np.float32)

    def mediastinum(self) -> FloatImage:
        """Great vessels: the column, the arch's knob, its calcified rim, the descending aorta."""
        aorta, calcium = _unit(self.signs.aorta), _unit(self.signs.calcium)
        mid = self.midline_mm
        column = _edge(24.0 + 4.0 * aorta - np.abs(self.x - mid), 4.0) * _edge(self.y - self.top_mm + 30.0, 10.0)
        radius = 11.0 + 11.0 * aorta
        kx, ky = mid + 20.0 + 9.0 * aorta, self.top_mm + 72.0 - 9.0 * aorta
        distance = np.sqrt((self.x - kx) ** 2 + (self.y - ky) ** 2)
        knob = _edge(radius - distance, 2.0)
        ascending = self.ellipse(mid - 15.0 - 9.0 * aorta, ky + 34.0, 13.0 + 4.0 * aorta, 40.0, 3.0)
        # The unfolded aorta bows out to the picture's right on its way down.
        bow = mid + 22.0 + 22.0 * aorta * np.sin(np.pi * np.clip((self.y - ky) / (self.base_mm - ky), 0, 1))
        descending = _edge(12.0 - np.abs(self.x - bow + 8.0), 3.0) * _edge(self.y - ky, 5.0)
        rim = np.exp(-(((distance - radius + 2.5) / 2.6) ** 2)) * _edge(self.x - kx + 0.6 * radius, 4.0)
        trachea = _edge(8.0 - np.abs(self.x - mid + 2.0 * aorta), 1.5) * _edge(ky + 22.0 - self.y, 4.0)
        return np.asarray(
            0.26 * column
            + 0.17 * knob
            + 0.10 * ascending
            + 0.13 * descending
            + 0.34 * max(calcium + 0.1, 0.0) * rim
            - 0.15 * trachea,
            dtype=np.float32,
        )

    def spine(self) -> FloatImage:
        """Vertebrae behind the mediastinum: bone that pales with age."""
        bone = 1.15 - 0.55 * _unit(self.signs.bone)
        d = self.x - 0.6 * self.midline_mm
        column = _edge(19.0 - np.abs(d), 2.0)
        disc = 0.5 + 0.5 * np.cos(2 * np.pi * (self.y - self.build.rib_start_mm) / self.build.rib_pitch_mm)
        pedicles = np.exp(-(((np.abs(d) - 11.0) / 4.0) ** 2)) * disc**3
        return np.asarray(bone * (column * (0.10 + 0.07 * disc) + 0.06 * pedicles), dtype=np.float32)

    def ribs(self) -> FloatImage:
        """Posterior and anterior arcs of all ribs, as one function of a bent coordinate, and their cartilage."""
        b = self.build
        bone = 0.17 * (1.20 - 0.75 * _unit(self.signs.bone))
        offset = self.x - 0.3 * self.midline_mm
        t = np.clip(np.abs(offset) / self.half, 0, 0.999)
        root = np.sqrt(1 - t**2)
        cage = _edge(self.half - np.abs(offset), 1.5) * _edge(self.y - self.top_mm + 4.0, 4.0)
        drop = (46.0 + 18.0 * self.bend) * b.rib_slope
        arcs = np.zeros_like(self.x)
        slope = t / np.maximum(root, 0.12)
        # Posterior: from the spine outwards and down; anterior: on from the flank inwards and down to the cartilage.
        for front, reach in ((False, drop), (True, 52.0 * b.rib_slope)):
            u = self.y - drop - (reach * root if front else -drop * root)
            phase = (u - self.top_mm - b.rib_start_mm) / b.rib_pitch_mm
            index = np.floor(phase)
            distance = (phase - index - 0.5) * b.rib_pitch_mm / np.sqrt(1 + (reach / self.half * slope) ** 2)
            ends = 10 if not front else 7
            kept = (index >= 0) & (index < ends)
            arc = _tube(distance.astype(np.float32), 5.2 if not front else 6.2) * kept
            if front:
                tip = _edge(np.abs(offset) - 0.52 * self.half, 3.0)
                cartilage = _unit(self.signs.cartilage)
                # Calcified cartilage is a mottled stump between the rib's end and the sternum.
                mottle = 0.7 + 0.3 * np.cos(offset / 2.2 + 3.0 * index)
                stump = _edge(0.54 * self.half - np.abs(offset), 3.0) * _edge(np.abs(offset) - 0.22 * self.half, 4.0)
                low = index >= 1
                arcs += 0.80 * bone * arc * tip + 0.16 * max(cartilage + 0.15, 0.0) * arc * stump * mottle * low
            else:
                arcs += bone * arc * _edge(np.abs(offset) - 12.0, 3.0)
        return np.asarray(arcs * cage, dtype=np.float32)

    def clavicles(self) -> FloatImage:
        """Two collar bones; kyphosis projects them lower over the apices."""
        bone = 0.22 * (1.15 - 0.55 * _unit(self.signs.bone))
        d = np.abs(self.x - self.midline_mm)
        line = self.top_mm + 26.0 - 14.0 * self.bend - 0.20 * (d - 20.0) + 7.0 * np.sin(d / 24.0)
        shaft = _tube((self.y - line).astype(np.float32), 6.0)
        return np.asarray(bone * shaft * _edge(d - 16.0, 3.0) * _edge(150.0 - d, 3.0), dtype=np.float32)

    def markings(self) -> FloatImage:
        """Vessels fanning out of the hila and the interstitium, which coarsens with age."""
        age = _unit(self.signs.markings)
        rng = np.random.default_rng(self.build.texture_seed)
        shape = self.x.shape
        noise = rng.standard_normal(shape, dtype=np.float32)
        fine = gaussian_filter(noise, 2.2 / self.spacing_mm)
        coarse = gaussian_filter(noise, 5.0 / self.spacing_mm)
        mesh = np.abs(fine) / fine.std() + 0.6 * np.abs(coarse) / coarse.std()
        hilum = sum(self.ellipse(self.midline_mm + s * 34.0, -18.0, 20.0, 30.0, 9.0) for s in (-1.0, 1.0))
        lower = 0.35 + 0.65 * np.clip(self.height, 0, 1)
        reticulation = 0.055 * max(0.25 + age, 0.05) * lower * np.minimum(mesh, 3.0)
        vessels = 0.0
        for s in (-1.0, 1.0):
            dx, dy = self.x - self.midline_mm - s * 26.0, self.y + 16.0
            radius, angle = np.hypot(dx, dy), np.arctan2(dy, s * dx)
            fan = np.clip(np.cos(11.0 * angle + 0.03 * radius + 3.0 * s), 0, 1) ** 6
            vessels = vessels + fan * np.exp(-radius / 42.0) * (s * dx > 0)
        return np.asarray(reticulation + 0.16 * vessels + 0.12 * hilum, dtype=np.float32)

    def apical_caps(self) -> FloatImage:
        """Pleural thickening under the apices, thicker with age."""
        age = _unit(self.signs.apex)
        roof = self.y - self.top_mm - 4.0 - 0.010 * (np.abs(self.x) - 58.0) ** 2
        return np.asarray(0.22 * _edge(2.0 + 9.0 * max(age, 0.0) - roof, 2.0), dtype=np.float32)
