"""The demo of `chest-ca`: chest radiographs of nobody at three hospitals, and the campaign that learns from them."""

from __future__ import annotations

from pathlib import Path

from fedage.deploy.demo.campaign import DemoCampaign
from fedage.deploy.demo.hospitals import HOSPITALS, WITH_DEFAULT_POLICY
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.phantoms import Planted, render_all

_OPTIONS = {
    "image_size": 64,
    "norm": "batch",
    "width": 32,
}
_ANALYSES = """\
[bias]
method = "linear"
scope = "site"

[survival]
time = "time_years"
event = "event"
ties = "efron"
time_grid_years = 0.25
table_times_years = {table_times_years}
split_gap_at = "median"

[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]

[[survival.models]]
name = "gap-unstratified"
covariates = ["gap_years", "age_years"]
by_site = false

[[survival.models]]
name = "cole-gap"
covariates = ["cole_gap_years", "age_years"]

[[survival.models]]
name = "true-gap"
covariates = ["true_gap_years", "age_years"]
"""


def _campaign(quick: bool) -> DemoCampaign:
    times_years = [2, 4, 6, 8, 10] if quick else list(range(1, 11))
    return DemoCampaign(
        patients="phantoms",
        purpose="Show on rendered phantoms that age can be learnt together and that the gap predicts events",
        estimator="chest-ca",
        options=_OPTIONS,
        ages_years=(40, 85),
        modality=("CR", "DX"),
        rounds=4 if quick else 14,
        local_epochs=10 if quick else 4,
        batch_size=16,
        learning_rate=1e-3,
        fractions=(0.38, 0.20, 0.42),
        minimum_count=2 if quick else 3,
        analyses=_ANALYSES.format(table_times_years=times_years),
    )


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    return render_all(folder, seed=seed, patients_per_site=80 if quick else 150)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in HOSPITALS),
    shown="chest radiographs",
    render=_render,
    campaign=_campaign,
    with_default_policy=WITH_DEFAULT_POLICY,
)
