"""The campaign file the demo writes: what a coordinator would write, for phantoms. Estimators differ in a few parts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedage.deploy.demo.truth import Planted

SURVIVAL = """\
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
"""


@dataclass(frozen=True, kw_only=True)
class DemoCampaign:
    """What the file of one estimator's demo says, of one size.

    Parameters
    ----------
    patients
        What the patients are, e.g. `phantom heads`.
    purpose
        As in `[campaign]`.
    estimator, options
        As in `[estimator]`.
    ages_years
        `age_min_years` and `age_max_years` of `[cohort]`.
    modality
        As there; none for those of the estimator.
    rounds, local_epochs, batch_size, learning_rate
        As in `[training]`.
    fractions
        Of patients for training, validation and test.
    only_validate
        Sites that nothing is trained on.
    minimum_count
        As in `[privacy]`; few patients of a demo need a small one.
    analyses
        The tables of the analyses after prediction, as text.
    """

    patients: str
    purpose: str
    estimator: str
    options: Mapping[str, Any]
    ages_years: tuple[int, int]
    rounds: int
    local_epochs: int
    batch_size: int = 10
    learning_rate: float = 3e-3
    fractions: tuple[float, float, float] = (0.5, 0.2, 0.3)
    modality: tuple[str, ...] = ()
    only_validate: tuple[str, ...] = ()
    minimum_count: int = 3
    analyses: str = SURVIVAL

    def text(self, planted: Planted, *, sites: Sequence[str], seed: int) -> str:
        """The file's text."""
        train, validation, test = self.fractions
        options = "\n".join(f"{name} = {json.dumps(value)}" for name, value in self.options.items())
        modality = f"modality = {json.dumps(self.modality)}\n" if self.modality else ""
        age_min, age_max = self.ages_years
        only_validate = f"[validation]\nsites = {json.dumps(self.only_validate)}\n\n" if self.only_validate else ""
        irreducible = "\n".join(f"{site} = {planted.irreducible_mae_years[site]:.4f}" for site in sites)
        return f"""\
# Three hospitals of {self.patients} learn to estimate age together. `fedage campaign new` explains every key.
[campaign]
name = "demo"
purpose = "{self.purpose}"
seed = {seed}
sites = {json.dumps(sites)}
wait_s = 120

[estimator]
name = "{self.estimator}"

[estimator.options]
{options}

[cohort]
{modality}age_min_years = {age_min}
age_max_years = {age_max}

[cohort.healthy]
column = "healthy"
equals = 1

[training]
strategy = "fedavg"
rounds = {self.rounds}
local_epochs = {self.local_epochs}
batch_size = {self.batch_size}
optimiser = "adamw"
learning_rate = {self.learning_rate}
final_learning_rate_fraction = 0.05
weight_decay = 0.01
quorum = 2
round_deadline_s = 300

{only_validate}[validation.fractions]
train = {train}
validation = {validation}
test = {test}

[privacy]
mode = "none"
minimum_count = {self.minimum_count}
# Of so few phantoms one often makes up more than half of a sum of squares; a real campaign leaves this at 0.5.
largest_share = 1

{self.analyses}
[analyses.planted-truth]
hazard_ratio_per_year = {planted.hazard_ratio_per_year}
gap_sd_years = {planted.gap_sd_years}
true_gap = "true_gap_years"

[analyses.planted-truth.irreducible_mae_years]
{irreducible}
"""
