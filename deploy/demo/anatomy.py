"""A chest X-ray-like picture of an adult, drawn from the signs of a biological age.

It looks like a radiograph and is none: shadows of simple shapes, in mm, brighter where denser. The signs of age
are those a reader knows (cardiothoracic ratio, unfolded and calcified aortic arch, demineralised bone, calcified costal
cartilage, kyphosis, coarse markings, apical caps); how strongly each changes with age is our own choice.

Notation: image (H, W); x to the picture's right (the patient's left), y downwards, in mm from the middle of the field,
for a chest of size 1. The strength of each sign of age is a number a = 0 at 40 years and 1 at 85.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from fedage.deploy.demo.person import Build, Signs

FloatImage = NDArray[np.float32]


def _strength(age_years: float) -> float:
    """Strength of a sign that looks `age_years` old: 0 at 40, 1 at 85, a little beyond both for the gaps."""
    return float(np.clip((age_years - 40.0) / 45.0, -0.4, 1.4))


def _edge(inside_mm: FloatImage, softness_mm: float) -> FloatImage:
    """1 well inside (positive distance), 0 outside, a logistic edge between."""
    return np.asarray(0.5 + 0.5 * np.tanh(inside_mm / np.float32(2 * softness_mm)), dtype=np.float32)


def _tube(distance_mm: FloatImage, half_width_mm: float) -> FloatImage:
    """A hollow bone seen from the side: a plateau with the brighter rims of its cortex."""
    r2 = (distance_mm / np.float32(half_width_mm)) ** 2
    return np.asarray(np.exp(-(r2**3)) * (0.75 + 0.35 * np.minimum(r2, 1.5)), dtype=np.float32)


def _bell(distance_mm: FloatImage, width_mm: float) -> FloatImage:
    """A Gaussian line."""
    return np.asarray(np.exp(-((distance_mm / np.float32(width_mm)) ** 2)), dtype=np.float32)


def render(signs: Signs, build: Build, *, shape: tuple[int, int], spacing_mm: float) -> FloatImage:
    """Density of the projected chest, (H, W) float32 from 0 (air outside) to below 1, brighter is denser."""
    chest = _Chest(signs, build, shape, spacing_mm)
    lungs = chest.lungs()
    middle = chest.middle()
    thickness = 0.85 * build.soft_tissue * chest.body() * (1 - 0.76 * lungs)
    thickness += middle + chest.breasts() + chest.abdomen() + chest.scapulae()
    thickness += chest.spine() + chest.ribs() + chest.clavicles()
    # Markings and caps belong to the lung that is seen beside the middle, not in front of it.
    thickness += lungs * np.clip(1 - 2.2 * middle, 0, 1) * (chest.markings() + chest.apical_caps())
    return np.asarray(1 - np.exp(-1.15 * np.maximum(thickness, 0)), dtype=np.float32)


class _Chest:
    """One chest on one pixel grid; every method returns an image (H, W)."""

    def __init__(self, signs: Signs, build: Build, shape: tuple[int, int], spacing_mm: float) -> None:
        self.signs, self.build, self.spacing_mm = signs, build, spacing_mm
        rows, columns = shape
        y = (np.arange(rows, dtype=np.float32) - (rows - 1) / 2)[:, None] * spacing_mm - build.shift_y_mm
        x = (np.arange(columns, dtype=np.float32) - (columns - 1) / 2)[None, :] * spacing_mm - build.shift_x_mm
        cos, sin = np.cos(build.tilt_rad), np.sin(build.tilt_rad)
        self.x: FloatImage = ((cos * x + sin * y) / build.size).astype(np.float32)
        self.y: FloatImage = ((cos * y - sin * x) / build.size).astype(np.float32)
        # Kyphosis shortens the chest, rounds it, and projects the clavicles over the apices.
        self.bend = _strength(signs.kyphosis)
        self.bone = 1.30 - 0.90 * _strength(signs.bone)
        self.top = -122.0 + 16.0 * self.bend
        self.base = 94.0 - 14.0 * self.bend + 5.0 * build.inspiration
        self.half = (124.0 + 7.0 * self.bend) * build.width
        self.mid = 7.0 * build.rotation
        self.depth: FloatImage = np.clip((self.y - self.top) / (self.base - self.top), 0, 1).astype(np.float32)
        # Half-width of the rib cage at each height: narrow apex, widest two thirds down.
        widening = np.sin(np.pi / 2 * self.depth ** np.float32(0.60 - 0.10 * self.bend))
        self.cage: FloatImage = (self.half * (0.32 + 0.68 * widening)).astype(np.float32)
        self.off: FloatImage = np.abs(self.x - self.mid).astype(np.float32)
        self.off_ribs: FloatImage = np.abs(self.x - 0.3 * self.mid).astype(np.float32)
        # Height of the two domes of the diaphragm; the right one (picture's left) stands higher.
        right = self.x < 0
        bulge = np.minimum(((self.x - np.where(right, -60.0, 64.0)) / 62.0) ** 2, 2.0)
        flatness = 26.0 - 7.0 * self.bend - 2.0 * build.inspiration
        self.dome: FloatImage = (self.base - np.where(right, 18.0, 8.0) + flatness * bulge).astype(np.float32)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, softness_mm: float, lean: float = 0.0) -> FloatImage:
        """A filled ellipse with a soft edge; `lean` shears x by y."""
        dy = self.y - np.float32(cy)
        dx = self.x - np.float32(cx) - np.float32(lean) * dy
        r = np.sqrt((dx / np.float32(rx)) ** 2 + (dy / np.float32(ry)) ** 2)
        return _edge((1 - r) * np.float32(min(rx, ry)), softness_mm)

    def body(self) -> FloatImage:
        """Neck, shoulders and trunk; thinner towards the flanks."""
        wall = self.half + 24.0 * self.build.soft_tissue + 8.0 * self.depth
        shoulder = -140.0 + 12.0 * self.bend + 0.0022 * self.off**2
        trunk = _edge(self.y - shoulder, 5.0) * _edge(np.maximum(wall - self.off, -30.0 - self.y), 3.0)
        neck = 0.85 * _edge(52.0 - self.off, 4.0)
        profile = 0.55 + 0.45 * np.sqrt(np.clip(1 - (self.off / (wall + 40.0)) ** 2, 0, 1))
        return np.asarray(np.maximum(trunk, neck) * profile, dtype=np.float32)

    def lungs(self) -> FloatImage:
        """Both lungs, 1 inside."""
        beside = _edge(self.cage - 5.0 - self.off_ribs, 2.0) * _edge(self.off - 18.0 - 10.0 * self.depth**2, 3.0)
        return beside * _edge(self.roof(), 3.0) * _edge(self.dome - self.y, 1.6)

    def roof(self) -> FloatImage:
        """Depth below the lungs' apices, mm."""
        return np.asarray(self.y - self.top - 4.0 - 0.010 * (self.off - 52.0) ** 2, dtype=np.float32)

    def abdomen(self) -> FloatImage:
        """Below the domes: denser with depth, with gas in the stomach."""
        below = self.y - self.dome
        inside = _edge(below, 2.0) * _edge(self.half - 4.0 - self.off, 4.0)
        gas = self.build.stomach * self.ellipse(58.0, self.base + 18.0, 22.0, 13.0, 3.0)
        return np.asarray(inside * (0.20 + 0.30 * np.clip(below / 60.0, 0, 1) - 0.28 * gas), dtype=np.float32)

    def breasts(self) -> FloatImage:
        """Soft shadows over the lower lung fields, larger in women."""
        weight = (0.03 if self.build.is_male else 0.11) * self.build.soft_tissue
        return np.asarray(
            weight * sum(self.ellipse(s * 70.0, 46.0, 46.0, 40.0, 7.0) for s in (-1, 1)), dtype=np.float32
        )

    def middle(self) -> FloatImage:
        """Heart and great vessels, one in front of the other."""
        heart, aorta = _strength(self.signs.heart), _strength(self.signs.aorta)
        mid, base = self.mid, self.base
        # The heart's width against the chest's is the cardiothoracic ratio.
        rx = (0.39 + 0.18 * heart) * self.half
        ventricle = self.ellipse(mid + 0.30 * rx + 2.0, base - 42.0, rx, 50.0 + 4.0 * heart, 2.5, lean=0.32)
        atrium = self.ellipse(mid - 14.0, base - 40.0, 24.0 + 6.0 * heart, 38.0, 2.5)
        column = _edge(21.0 + 4.0 * aorta - self.off, 3.0) * _edge(self.y - self.top + 30.0, 10.0)
        # The aorta unfolds: its knob grows and rises, both limbs bow outwards.
        knob_x, knob_y, radius = mid + 19.0 + 9.0 * aorta, self.top + 70.0 - 9.0 * aorta, 11.0 + 13.0 * aorta
        dx, dy = self.x - knob_x, self.y - knob_y
        distance: FloatImage = np.sqrt(dx**2 + dy**2)
        knob = _edge(radius - distance, 1.8)
        ascending = self.ellipse(mid - 14.0 - 10.0 * aorta, knob_y + 36.0, 13.0 + 4.0 * aorta, 42.0, 2.5)
        along = np.clip((self.y - knob_y) / (base - knob_y), 0, 1)
        bow = mid + 12.0 + 27.0 * aorta * np.sin(np.pi * along)
        descending = _edge(12.0 - np.abs(self.x - bow), 2.5) * _edge(self.y - knob_y, 5.0)
        trachea = _edge(8.0 - np.abs(self.x - mid + 2.0 * aorta), 1.5) * _edge(knob_y + 22.0 - self.y, 4.0)
        above = _edge(self.dome + 3.0 - self.y, 3.0)  # below the dome the liver and stomach are as dense
        soft = np.maximum.reduce([ventricle * above, 0.9 * atrium * above, 0.75 * column, 0.72 * ascending])
        shadow = 0.48 * soft + 0.20 * knob + 0.13 * descending - 0.16 * trachea
        # Calcium lines the outer and upper wall of the knob.
        calcium = max(_strength(self.signs.calcium) + 0.15, 0.0)
        outwards = np.clip(0.35 + 0.65 * (0.8 * dx - 0.6 * dy) / np.maximum(distance, 1.0), 0, 1)
        return np.asarray(shadow + 0.50 * calcium * _bell(distance - radius + 2.5, 2.8) * outwards, dtype=np.float32)

    def spine(self) -> FloatImage:
        """Vertebrae behind the middle."""
        d = np.abs(self.x - 0.6 * self.mid)
        body = 0.5 + 0.5 * np.cos(2 * np.pi * (self.y - self.build.rib_start_mm) / self.build.rib_pitch_mm)
        bone = _edge(18.0 - d, 2.0) * (0.12 + 0.10 * body) + 0.08 * _bell(d - 11.0, 4.0) * body**3
        return np.asarray(self.bone * bone, dtype=np.float32)

    def ribs(self) -> FloatImage:
        """All posterior and anterior arcs as one periodic function of a bent height each, and the costal cartilage."""
        b = self.build
        t = np.minimum(self.off_ribs / self.cage, np.float32(0.999))
        root = np.sqrt(1 - t**2)
        steep = t / np.maximum(root, 0.12) / self.cage
        back_mm, front_mm = (44.0 + 16.0 * self.bend) * b.rib_slope, 50.0 * b.rib_slope
        first = self.y - self.top - b.rib_start_mm
        # Posterior: from the spine outwards and down to the flank.
        back, _ = self._arcs(first + 6.0 - back_mm * (1 - root), back_mm * steep, half_width_mm=4.8, ribs=10)
        # Anterior: on from the flank, inwards and down, until it turns into cartilage.
        front, index = self._arcs(first - back_mm - front_mm * root, front_mm * steep, half_width_mm=5.8, ribs=7)
        end = self.cage * np.float32(0.52)
        shadow = (
            0.24 * self.bone * (back * _edge(self.off_ribs - 12.0, 3.0) + 0.8 * front * _edge(self.off_ribs - end, 3.0))
        )
        calcium = max(_strength(self.signs.cartilage) + 0.15, 0.0)
        mottle = 0.7 + 0.3 * np.cos(self.off_ribs / 2.2 + 3.0 * index)
        stump = _edge(end - self.off_ribs + 3.0, 2.0) * _edge(self.off_ribs - 0.26 * self.cage, 4.0) * (index < 6)
        shadow += 0.34 * calcium * front * stump * mottle
        inside = _edge(self.cage - self.off_ribs, 1.5) * _edge(self.y - self.top + 4.0, 4.0)
        return np.asarray(shadow * inside * (0.35 + 0.65 * _edge(self.dome - self.y, 4.0)), dtype=np.float32)

    def _arcs(
        self, height_mm: FloatImage, slope: FloatImage, *, half_width_mm: float, ribs: int
    ) -> tuple[FloatImage, FloatImage]:
        phase = height_mm / np.float32(self.build.rib_pitch_mm)
        index = np.floor(phase)
        distance = (phase - index - 0.5) * self.build.rib_pitch_mm / np.sqrt(1 + slope**2)
        return _tube(distance, half_width_mm) * ((index >= 0) & (index < ribs)), index

    def clavicles(self) -> FloatImage:
        """Two collar bones from the breast bone to the shoulders."""
        line = self.top + 34.0 - 15.0 * self.bend - 0.20 * (self.off - 16.0) + 6.0 * np.sin(self.off / 26.0)
        shaft = _tube(self.y - line, 6.0) * _edge(self.off - 14.0, 2.0) * _edge(146.0 - self.off, 3.0)
        return np.asarray(0.28 * self.bone * shaft, dtype=np.float32)

    def scapulae(self) -> FloatImage:
        """Shoulder blades at the upper flanks: a faint plate with a brighter inner border."""
        inner = 100.0 + 0.28 * (self.y + 60.0)
        tall = _edge(self.y - self.top - 22.0, 6.0) * _edge(28.0 - self.y, 6.0)
        plate = 0.07 * _edge(self.off - inner, 1.5) * _edge(inner + 52.0 - self.off, 6.0) + 0.09 * _bell(
            self.off - inner, 3.0
        )
        return np.asarray(self.bone * plate * tall, dtype=np.float32)

    def markings(self) -> FloatImage:
        """Vessels fanning out of the hila, and the interstitium, which coarsens with age."""
        coarse = max(0.30 + 1.1 * _strength(self.signs.markings), 0.05)
        noise = np.random.default_rng(self.build.texture_seed).standard_normal(self.x.shape, dtype=np.float32)
        mesh = np.zeros_like(self.x)
        for scale_mm, weight in ((2.4, 0.7), (5.0, 0.6)):
            smooth = gaussian_filter(noise, scale_mm * self.build.size / self.spacing_mm)
            mesh += weight * np.minimum(np.abs(smooth) / smooth.std(), 2.5)
        shadow = 0.085 * coarse * (0.35 + 0.65 * self.depth) * mesh
        for s in (-1.0, 1.0):
            dx, dy = s * (self.x - self.mid) - 24.0, self.y + 12.0
            radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
            fan = np.clip(np.cos(9.0 * angle + 0.05 * radius + 2.0 * s), 0, 1) ** 5
            shadow += 0.30 * fan * np.exp(-radius / 34.0) * _edge(dx, 3.0)
            shadow += 0.16 * self.ellipse(self.mid + s * 32.0, -12.0, 14.0, 26.0, 7.0)
        return np.asarray(shadow, dtype=np.float32)

    def apical_caps(self) -> FloatImage:
        """Pleural thickening under the apices, thicker with age."""
        thickness_mm = 2.0 + 14.0 * max(_strength(self.signs.apex), 0.0)
        return np.asarray(0.32 * _edge(thickness_mm - self.roof(), 2.0), dtype=np.float32)
