"""The parts of `results.json`, one class an object of the file; every description is the reader's help.

Part (unknown keys refused)
├── what the campaign, the run, the sites and the rounds were
└── AnalysisResult (further keys kept): what an analysis found
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Number = float | None
Counts = dict[str, int | None]


def plain(value: Any) -> Any:
    """Plain JSON-able values: NumPy scalars and arrays unpacked, NaN and infinity as None, all the way down."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


class Part(BaseModel):
    """Base of everything here: frozen, unknown keys refused, NumPy values made plain, NaN and infinity made null."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, values: Any) -> Any:
        return plain(values)


@dataclass(frozen=True)
class Reference:
    """What a figure of other analyses is shown beside, e.g. the error of the best possible reader of a simulation.

    Parameters
    ----------
    heading
        Of its column in a table.
    words
        What it is, in a sentence or a legend.
    values
        By what the figure is of, a site or a covariate; under an empty name over all.
    """

    heading: str
    words: str
    values: Mapping[str, Number]


class AnalysisResult(Part):
    """Base of what an analysis found: further keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)

    def references(self) -> Mapping[str, Reference]:
        """What other analyses show beside their figures: `mae_years` by site, `hazard_ratio` by covariate."""
        return {}


class CampaignInfo(Part):
    """What was asked."""

    name: str = Field(description="the campaign's name")
    purpose: str = Field(description="what was asked of the sites")
    digest: str = Field(description="SHA-256 of the campaign file's bytes")
    seed: int = Field(description="seed of initialisation and sampling without privacy")
    estimator: str = Field(description="the age estimator; empty for a campaign that only analyses")
    train_on: str = Field(
        default="all", description="whose predicted ages are judged, and who trains: `healthy` or `all`"
    )
    rounds: int | None = Field(
        default=None, description="rounds of training asked for, in each fold; null where a model needs none"
    )
    folds: int | None = Field(default=None, description="folds of cross-fitting; null without")
    final_model: bool = Field(
        default=False, description="whether one more model was made on everybody, beside the folds'"
    )
    bundle: str = Field(
        default="", description="SHA-256 of the bundle that was validated; empty where a model was made"
    )
    minimum_count: int = Field(description="fewest patients behind any released cell")

    @property
    def model_folds(self) -> int | None:
        """Folds that each have a model of their own; None without, and where a bundle's model is validated."""
        return None if self.bundle else self.folds


class RunInfo(Part):
    """When and where it ran, and how it ended."""

    id: str = Field(description="the run")
    started_utc: str = Field(description="ISO 8601, UTC")
    finished_utc: str | None = Field(default=None, description="ISO 8601, UTC; null while running")
    status: Literal["finished", "stopped", "failed"] = Field(description="how it ended")
    reason: str = Field(default="", description="why it stopped or failed")
    environment: Literal["deployment", "simulation"] = Field(description="real sites, or one machine")
    guard: bool = Field(default=True, description="whether the sites' disclosure control was on")


class Withheld(Part):
    """A contribution that a site did not release."""

    step: str = Field(description="registered analysis or message kind")
    reason: str = Field(description="the rule and what it says")


class AgeSummary(AnalysisResult):
    """Chronological age at exam of a site's patients."""

    n: int = Field(description="patients")
    mean_years: Number = Field(default=None, description="mean")
    sd_years: Number = Field(default=None, description="standard deviation")


class AuditHead(Part):
    """The last line of a site's audit log that this run saw. The site's log must still lead there."""

    sequence: int = Field(ge=0, description="number of the line")
    hash: str = Field(description="its hash, hexadecimal; it stands for every line before it too")
    time_utc: str = Field(description="by the site's clock")


WHOLE_SITE = "replace one site's updates by nothing"
"""The neighbours where privacy is that of a whole site."""


class SitePrivacy(Part):
    """Differential privacy of a site's part in training the model.

    For each of its patients, by its own word; or for the site as a whole, by the coordinator's (see `adjacency`).
    """

    epsilon: Number = Field(
        description="ε of all its updates and noised sums of this campaign together; of whole sites, of this run"
    )
    delta: Number = Field(description="δ that it holds at")
    noise_multiplier: Number = Field(description="σ: the noise's standard deviation over the clip norm; null if hidden")
    sampling_rate: Number = Field(
        description="q: the probability that a patient, or site, joins a step; null if hidden"
    )
    steps: int | None = Field(description="noisy steps of a round; null if hidden")
    clip_norm: Number = Field(description="L2 norm that one patient's gradient, or one site's update, is clipped to")
    adjacency: str = Field(default="add or remove one patient", description="which two data sets are neighbours")
    accountant: str = Field(default="", description="how ε is computed")


class SiteRecord(Part):
    """One site: what it brought, what it set aside, what it withheld."""

    name: str = Field(description="the site's name")
    status: Literal["took part", "dropped out", "refused", "absent"] = Field(description="how it took part")
    role: str = Field(
        default="",
        description="what its policy let it do: `training and evaluation`, `evaluation only` …; empty if unknown",
    )
    dropped_out_in_round: int | None = Field(
        default=None, description="round it dropped out in, with folds of the last fold; 0 is after training"
    )
    reason: str = Field(default="", description="why it dropped out, refused or was absent")
    patients: int | None = Field(default=None, description="patients in the cohort; null if withheld or not told")
    hidden: bool = Field(
        default=False, description="whether its numbers are hidden from the coordinator (secure aggregation)"
    )
    minimum_count: int | None = Field(
        default=None, description="fewest patients that it tells of: the larger of the campaign's and its own"
    )
    patients_by_part: Counts = Field(
        default_factory=dict,
        description="train, validation and test; with folds `fold 1`, `fold 2` …; of those trained on and of folds "
        "only who may be trained on",
    )
    held_out_in_folds: int | None = Field(
        default=None,
        ge=0,
        description="in how many folds it holds patients out, a small site in fewer than there are; in the others all "
        "of its patients may train; null without folds, or where the sizes of its parts are withheld",
    )
    excluded: Counts = Field(default_factory=dict, description="patients left out of the cohort, by reason code")
    rejected_files: Counts = Field(default_factory=dict, description="files not read, by reason code")
    rejected_samples: Counts = Field(default_factory=dict, description="images the estimator refused, by reason code")
    age: AgeSummary | None = Field(default=None, description="if released")
    sex: Counts = Field(default_factory=dict, description="male, female and unknown, if released")
    device: str = Field(default="", description="what it computed on")
    fedage_version: str = Field(default="", description="its FedAge version")
    withheld: tuple[Withheld, ...] = Field(default=(), description="contributions that did not leave")
    troubles: tuple[str, ...] = Field(default=(), description="what went wrong, in plain words")
    privacy: SitePrivacy | None = Field(
        default=None, description="of a campaign with differential privacy, after the site's last update"
    )
    audit_head: AuditHead | None = Field(default=None, description="of its audit log; null in simulation")


class Round(Part):
    """One round of training. Validation figures are those of the model after it."""

    number: int = Field(ge=1, description="from 1, in each fold again")
    fold: int | None = Field(
        default=None, ge=1, description="from 1, one more than there are for the final model; null without folds"
    )
    seconds: Number = Field(default=None, description="wall time")
    train_loss: Number = Field(default=None, description="mean of the sites' losses, weighted by their patients")
    validation_mae_years: Number = Field(
        default=None,
        description="of the averaged model, all sites; where sites control disclosure, of normal errors with the mean "
        "and standard deviation that they tell; with privacy for each patient from noised sums",
    )
    validation_mae_years_by_site: dict[str, Number] = Field(default_factory=dict, description="the same by site")
    sites: tuple[str, ...] = Field(default=(), description="sites whose update counted")
    kept: bool | None = Field(
        default=None, description="whether the model is this round's, by its validation error; null: the last one's"
    )
    update_norm: Number = Field(default=None, description="L2 norm of the averaged update")
    epsilon_by_site: dict[str, Number] = Field(
        default_factory=dict, description="ε that each site has spent on the campaign by then, with privacy only"
    )
