"""The demo of `chest-ca` on children: films of nobody at three hospitals, errors in months, sex beside the film."""

from __future__ import annotations

from pathlib import Path

from fedage.deploy.demo.campaign import SURVIVAL, DemoCampaign
from fedage.deploy.demo.children import CHILDREN_HOSPITALS, GAP_SD_YEARS, render_children
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.phantoms import planted
from fedage.deploy.demo.truth import Planted

_OPTIONS = {
    "image_size": 64,
    "norm": "batch",
    "width": 16,
    "age_in": "months",
    "centre_years": 8.0,
    "scale_years": 5.0,
    "sex_input": True,
}
_ANALYSES = f"""\
{SURVIVAL}
[analyses.age-errors]
unit = "months"
age_bin_years = 4

[analyses.rank-correlation]
"""


def _campaign(quick: bool) -> DemoCampaign:
    return DemoCampaign(
        patients="phantom films of children",
        purpose="Show on rendered films of children that age can be learnt together to the month",
        estimator="chest-ca",
        options=_OPTIONS,
        ages_years=(0, 20),
        modality=("CR", "DX"),
        rounds=6 if quick else 14,
        local_epochs=6 if quick else 4,
        batch_size=16,
        analyses=_ANALYSES,
    )


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    for hospital in CHILDREN_HOSPITALS:
        render_children(hospital, out_dir=folder / hospital.name, seed=seed, patients=100 if quick else 200)
    return planted(CHILDREN_HOSPITALS, gap_sd_years=GAP_SD_YEARS)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in CHILDREN_HOSPITALS),
    shown="chest radiographs of children",
    render=_render,
    campaign=_campaign,
)
