"""The demo of `brain-clinical2d`: volumes of heads of nobody at two hospitals, thick slices at a third.

The third only validates: what the volumes teach through simulated slices is applied to its series.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedage.deploy.demo import brain_campaign
from fedage.deploy.demo.brains import BRAIN_HOSPITALS, BrainHospital, render_brains
from fedage.deploy.demo.campaign import DemoCampaign
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.truth import Planted

_OPTIONS = {
    **brain_campaign.OPTIONS,
    "shape": [32, 32, 24],
    "up_mm": 2.5,
    "slices": [18, 24],
}
_UP_MM = 2.5
_CLINICAL = "harbour"


def with_volumes(hospital: BrainHospital) -> BrainHospital:
    """The hospital with research volumes, their voxels fine along up."""
    scanner = hospital.scanner
    along_up = round(scanner.shape[2] * scanner.spacing_mm / _UP_MM)
    return replace(
        hospital, scanner=replace(scanner, shape=(*scanner.shape[:2], along_up), up_mm=_UP_MM, slice_mm=None)
    )


def with_slices(hospital: BrainHospital, *, slice_mm: float, gap_mm: float, slices: int) -> BrainHospital:
    """The same people in the same scanner, as thick axial slices."""
    scanner = hospital.scanner
    clinical = replace(scanner, shape=(*scanner.shape[:2], slices), up_mm=slice_mm + gap_mm, slice_mm=slice_mm)
    return replace(hospital, scanner=clinical)


HOSPITALS = tuple(
    with_slices(hospital, slice_mm=5.5, gap_mm=1.1, slices=24) if hospital.name == _CLINICAL else with_volumes(hospital)
    for hospital in BRAIN_HOSPITALS
)


def _campaign(quick: bool) -> DemoCampaign:
    return replace(
        brain_campaign.DEMO.campaign(quick),
        purpose="Show on rendered heads that age learnt from volumes through simulated slices holds for thick slices",
        estimator="brain-clinical2d",
        options=_OPTIONS,
        only_validate=(_CLINICAL,),
    )


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    return render_brains(folder, seed=seed, patients_per_site=90 if quick else 150, hospitals=HOSPITALS)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in HOSPITALS),
    shown="heads, volumes and thick slices,",
    render=_render,
    campaign=_campaign,
)
