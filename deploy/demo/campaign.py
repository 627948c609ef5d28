"""The campaign file the demo writes: what a coordinator would write, for phantoms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedage.deploy.demo.hospitals import HOSPITALS, WITH_DEFAULT_POLICY
from fedage.deploy.demo.kinds import DemoKind
from fedage.deploy.demo.phantoms import Planted, render_all


@dataclass(frozen=True)
class Size:
    """What differs between the demo and its quick form."""

    image_size: int
    rounds: int
    local_epochs: int
    batch_size: int
    learning_rate: float
    minimum_count: int
    table_times_years: tuple[float, ...]


FULL = Size(
    image_size=64,
    rounds=14,
    local_epochs=4,
    batch_size=16,
    learning_rate=1e-3,
    minimum_count=3,
    table_times_years=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
)
QUICK = Size(
    image_size=64,
    rounds=4,
    local_epochs=10,
    batch_size=16,
    learning_rate=1e-3,
    minimum_count=2,
    table_times_years=(2, 4, 6, 8, 10),
)


def campaign_file(planted: Planted, *, sites: Sequence[str], seed: int, quick: bool) -> str:
    """The text of the demo's campaign file."""
    size = QUICK if quick else FULL
    irreducible = "\n".join(f"{site} = {planted.irreducible_mae_years[site]:.4f}" for site in sites)
    return f"""\
# Three hospitals of phantoms learn to estimate age together. `fedage campaign new` explains every key.
[campaign]
name = "demo"
purpose = "Show on rendered phantoms that age can be learnt together and that the gap predicts events"
seed = {seed}
sites = [{", ".join(f'"{site}"' for site in sites)}]
wait_s = 120

[estimator]
name = "chest-ca"

[estimator.options]
image_size = {size.image_size}
norm = "batch"
width = 32

[cohort]
modality = ["CR", "DX"]
age_min_years = 40
age_max_years = 85

[cohort.healthy]
column = "healthy"
equals = 1

[training]
strategy = "fedavg"
rounds = {size.rounds}
local_epochs = {size.local_epochs}
batch_size = {size.batch_size}
optimiser = "adamw"
learning_rate = {size.learning_rate}
final_learning_rate_fraction = 0.05
weight_decay = 0.01
quorum = 2
round_deadline_s = 300

[validation.fractions]
train = 0.38
validation = 0.20
test = 0.42

[privacy]
mode = "none"
minimum_count = {size.minimum_count}
# Of so few phantoms one often makes up more than half of a sum of squares; a real campaign leaves this at 0.5.
largest_share = 1

[bias]
method = "linear"
scope = "site"

[survival]
time = "time_years"
event = "event"
ties = "efron"
time_grid_years = 0.25
table_times_years = {list(size.table_times_years)}
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

[analyses.planted-truth]
hazard_ratio_per_year = {planted.hazard_ratio_per_year}
gap_sd_years = {planted.gap_sd_years}
true_gap = "true_gap_years"

[analyses.planted-truth.irreducible_mae_years]
{irreducible}
"""


def _render(folder: Path, seed: int, quick: bool) -> Planted:
    return render_all(folder, seed=seed, patients_per_site=80 if quick else 150)


DEMO = DemoKind(
    sites=tuple(hospital.name for hospital in HOSPITALS),
    shown="chest radiographs",
    render=_render,
    campaign_file=campaign_file,
    minimum_count=lambda quick: (QUICK if quick else FULL).minimum_count,
    with_default_policy=WITH_DEFAULT_POLICY,
)
