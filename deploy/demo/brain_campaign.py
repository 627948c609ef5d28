"""The demo of `brain-sfcn`: heads of nobody at three hospitals, and the campaign file that learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedage.deploy.demo.brains import BRAIN_HOSPITALS, render_brains
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.truth import Planted

MINIMUM_COUNT = 3


def brain_campaign_file(planted: Planted, /, *, sites: Sequence[str], seed: int, quick: bool) -> str:
    """The text of the file; volumes and width are small, so that two cores learn them in minutes."""
    irreducible = "\n".join(f"{site} = {planted.irreducible_mae_years[site]:.4f}" for site in sites)
    return f"""\
# Three hospitals of phantom heads learn to estimate age together. `fedage campaign new` explains every key.
[campaign]
name = "demo"
purpose = "Show on rendered heads that age can be learnt together from volumes and that the gap predicts events"
seed = {seed}
sites = [{", ".join(f'"{site}"' for site in sites)}]
wait_s = 120

[estimator]
name = "brain-sfcn"

[estimator.options]
shape = [32, 32, 32]
spacing_mm = 6.0
coarsest_mm = 6.0
width = 8
first_bin_years = 27.0
last_bin_years = 99.0
bin_width_years = 3.0
label_sd_years = 3.0
shift_voxels = 1
poolings = 3

[cohort]
age_min_years = 40
age_max_years = 90

[cohort.healthy]
column = "healthy"
equals = 1

[training]
strategy = "fedavg"
rounds = {6 if quick else 16}
local_epochs = {6 if quick else 3}
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
    return render_brains(folder, seed=seed, patients_per_site=90 if quick else 150)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in BRAIN_HOSPITALS),
    shown="heads",
    render=_render,
    campaign_file=brain_campaign_file,
    minimum_count=lambda quick: MINIMUM_COUNT,  # noqa: ARG005 - quick or not
)
