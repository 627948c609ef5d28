"""The demo of `breast-4view`: mammography exams of nobody at three hospitals, and the campaign that learns from them.

Images and network are small, so that two cores learn them in minutes.
"""

from __future__ import annotations

from pathlib import Path

from fedage.deploy.demo.campaign import DemoCampaign
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.mammograms import HOSPITALS, render_mammography
from fedage.deploy.demo.phantoms import planted
from fedage.deploy.demo.truth import Planted

_OPTIONS = {
    "image_height": 64,
    "image_width": 32,
    "width": 8,
    "local_channels": 16,
    "local_blocks": 1,
    "draws": 4,
    "dropout": 0.1,
    "age_min_years": 30,
    "age_max_years": 85,
}


def _campaign(quick: bool) -> DemoCampaign:
    return DemoCampaign(
        patients="phantom mammograms",
        purpose="Show on rendered mammograms that age can be learnt together from four views and that the gap "
        "predicts events",
        estimator="breast-4view",
        options=_OPTIONS,
        ages_years=(40, 75),
        rounds=8 if quick else 16,
        local_epochs=5 if quick else 3,
    )


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    for hospital in HOSPITALS:
        render_mammography(hospital, out_dir=folder / hospital.name, seed=seed, patients=90 if quick else 150)
    return planted(HOSPITALS)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in HOSPITALS), shown="mammograms", render=_render, campaign=_campaign
)
