"""The demo of `breast-4view`: mammography exams of nobody at three hospitals, and the campaign file that learns from
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.mammograms import HOSPITALS, render_mammography
from fedage.deploy.demo.phantoms import planted
from fedage.deploy.demo.truth import Planted

MINIMUM_COUNT = 3


def breast_campaign_file(planted: Planted, /, *, sites: Sequence[str], seed: int, quick: bool) -> str:
    """The text of the file; images and network are small, so that two cores learn them in minutes."""
    irreducible = "\n".join(f"{site} = {planted.irreducible_mae_years[site]:.4f}" for site in sites)
    return f"""\
# Three hospitals of phantom mammograms learn to estimate age together. `fedage campaign new` explains every key.
[campaign]
name = "demo"
purpose = "Show on rendered mammograms that age can be learnt together from four views and that the gap predicts events"
seed = {seed}
sites = [{", ".join(f'"{site}"' for site in sites)}]
wait_s = 120

[estimator]
name = "breast-4view"

[estimator.options]
image_height = 64
image_width = 32
width = 8
local_channels = 16
local_blocks = 1
# Gaussian embeddings need many more steps than so few exams give: their noise has variance 1 from the beginning.
draws = 0
dropout = 0.0
augment = false
age_min_years = 30
age_max_years = 85

[cohort]
age_min_years = 40
age_max_years = 75

[cohort.healthy]
column = "healthy"
equals = 1

[training]
strategy = "fedavg"
rounds = {3 if quick else 16}
local_epochs = {2 if quick else 3}
batch_size = 10
optimiser = "adamw"
learning_rate = 3e-3
final_learning_rate_fraction = 0.05
weight_decay = 0.01
quorum = 2
round_deadline_s = 300

[validation.fractions]
train = 0.5
validation = 0.2
test = 0.3

[privacy]
mode = "none"
minimum_count = {MINIMUM_COUNT}
# Of so few phantoms one often makes up more than half of a sum of squares; a real campaign leaves this at 0.5.
largest_share = 1

[survival]
time = "time_years"
event = "event"
time_grid_years = 0.25

[[survival.models]]
name = "gap"
covariates = ["gap_years", "age_years"]

[[survival.models]]
name = "true-gap"
covariates = ["true_gap_years", "age_years"]

[analyses.planted-truth]
hazard_ratio_per_year = {planted.hazard_ratio_per_year}
gap_sd_years = {planted.gap_sd_years}
true_gap = "true_gap_years"

[analyses.planted-truth.irreducible_mae_years]
{irreducible}
"""


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    for hospital in HOSPITALS:
        render_mammography(hospital, out_dir=folder / hospital.name, seed=seed, patients=50 if quick else 150)
    return planted(HOSPITALS)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in HOSPITALS),
    shown="mammograms",
    render=_render,
    campaign_file=breast_campaign_file,
    minimum_count=lambda quick: MINIMUM_COUNT,  # noqa: ARG005 - quick or not
)
