"""The demo of `brain-sfcn`: heads of nobody at three hospitals, and the campaign that learns from them.

Volumes and width are small, so that two cores learn them in minutes.
"""

from __future__ import annotations

from pathlib import Path

from fedage.deploy.demo.brains import BRAIN_HOSPITALS, render_brains
from fedage.deploy.demo.campaign import DemoCampaign
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.truth import Planted

HEADS = {"shape": [32, 32, 32], "spacing_mm": 6.0, "coarsest_mm": 6.0}
"""Options of samples of these heads."""
OPTIONS = {
    **HEADS,
    "width": 8,
    "dropout": 0.1,
    "first_bin_years": 27.0,
    "last_bin_years": 99.0,
    "bin_width_years": 3.0,
    "label_sd_years": 3.0,
    "shift_voxels": 1,
    "poolings": 3,
}


def _campaign(quick: bool) -> DemoCampaign:
    return DemoCampaign(
        patients="phantom heads",
        purpose="Show on rendered heads that age can be learnt together from volumes and that the gap predicts events",
        estimator="brain-sfcn",
        options=OPTIONS,
        ages_years=(40, 90),
        rounds=8 if quick else 16,
        local_epochs=6 if quick else 3,
    )


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    return render_brains(folder, seed=seed, patients_per_site=90 if quick else 150)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in BRAIN_HOSPITALS), shown="heads", render=_render, campaign=_campaign
)
