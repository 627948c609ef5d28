"""Decoded images between the data zone and an estimator, and why one is refused; without torch.

Shapes: H × W pixels of an image, I × J × K voxels of a volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class Image:
    """One decoded image or volume as the data zone hands it to an estimator.

    Parameters
    ----------
    pixels
        (H, W) float32, modality (and VOI) transform applied, *brighter is denser* whatever the file's photometric
        interpretation was; or (I, J, K), axes the nearest ones to the patient's right, front and up (RAS+).
    spacing_mm
        Distance of pixels along each axis in millimetres.
    modality
        DICOM modality, e.g. `CR`.
    view
        View position, e.g. `PA`; `T1W` for a T1-weighted volume of a BIDS data set, `DSEG` for a label map, `DSEG-ASEG`
        for one with that description; empty if unknown.
    laterality
        `L`, `R` or `B`; empty if unknown or not paired.
    orientation
        `RAS` for a volume; empty for an image.
    """

    pixels: FloatImage
    spacing_mm: tuple[float, ...]
    modality: str
    view: str = ""
    laterality: str = ""
    orientation: str = ""


@dataclass(frozen=True)
class Exam:
    """One patient's images of one session, by the name of the estimator's input; an optional one may not be there."""

    images: Mapping[str, Image]

    def __getitem__(self, name: str) -> Image:
        return self.images[name]

    def __contains__(self, name: str) -> bool:
        return name in self.images


class SampleRefused(ValueError):
    """An image cannot become a sample of this estimator.

    Parameters
    ----------
    code
        A reason code that may be counted and reported.
    detail
        What is wrong; of no patient.
    input
        The input whose image it is: the site then tries that input's next image. Empty for the exam as a whole.
    """

    def __init__(self, code: str, detail: str, *, input: str = "") -> None:
        self.code = code
        self.input = input
        super().__init__(f"{code}: {detail}")
