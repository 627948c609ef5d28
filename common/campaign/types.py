"""The frozen objects a campaign file becomes. One class a table of the file; every description is the reader's help.

Units are in the names. Where a value exists in the plan but not yet in the code, `NOT_BUILT` in `_rules.py` refuses it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import ConfigDict, Field

from fedage.common.campaign.fields import Column as Column
from fedage.common.campaign.fields import Fraction, NotNegative
from fedage.common.campaign.fields import Header as Header
from fedage.common.campaign.fields import Name as Name
from fedage.common.campaign.fields import Positive as Positive
from fedage.common.campaign.fields import Table as Table
from fedage.common.campaign.training import DEADLINE_S
from fedage.common.campaign.training import Training as Training

QUORUM_WAIT_S = 90.0
"""A node that was killed may connect again some twenty seconds later; a machine that restarts takes longer."""
USUAL_AGE_STEP_YEARS = 5.0
"""Of what a site's policy takes age limits as multiples unless it says otherwise."""


class About(Table):
    """`[campaign]`: what this is and for whom."""

    name: Name = Field(description="short name, lower-case letters, digits and hyphens")
    purpose: str = Field(min_length=10, max_length=2000, description="what is asked of the sites, in a sentence")
    seed: int = Field(ge=0, lt=2**32, description="drives initialisation and sampling without privacy")
    sites: tuple[Name, ...] = Field(default=(), description="expected sites; empty means whoever is admitted")
    wait_s: float = Field(default=120.0, gt=0, le=86400, description="how long sites may take to come online")
    approval_wait_s: float = Field(
        default=86400.0,
        gt=0,
        le=30 * 86400,
        description="how long a site that is online may take to approve: a person there reads the campaign first",
    )


class EstimatorChoice(Table):
    """`[estimator]`: which estimator, with its own options."""

    name: str = Field(description="a registered estimator")
    bundle: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = Field(
        default=None,
        description="SHA-256 of a model bundle, as fedage campaign export prints it: that model is validated at the "
        "sites, and nothing is trained",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="the estimator's own options")


class Healthy(Table):
    """`[cohort.healthy]`: who counts as healthy (bias lines are fitted on them)."""

    column: Column = Field(description="outcome column that says it")
    equals: float = Field(default=1.0, description="its value for a healthy patient")


class CohortChoice(Table):
    """`[cohort]`: who takes part."""

    train_on: Literal["all", "healthy"] = Field(
        default="all",
        description="whom a model is trained on and predicted ages are judged on; others are only predicted",
    )
    modality: tuple[Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")], ...] = Field(
        default=(), description="DICOM modalities; empty means those of the estimator"
    )
    age_min_years: float = Field(default=0.0, ge=0, le=130, description="youngest age at exam")
    age_max_years: float = Field(default=130.0, ge=0, le=130, description="oldest age at exam")
    healthy: Literal["all"] | Healthy = Field(default="all", description='"all", or a column and its value')


class TableChoice(Table):
    """`[table]`: how the sites' tables are read, in a campaign on tables. Columns are named as the tables name them."""

    id: Header | None = Field(default=None, description="column that tells patients apart")
    age: Header | None = Field(default=None, description="column with the age in years")
    predicted: Header | None = Field(
        default=None,
        description="column with ages already predicted; groups are then compared by their raw gap, else by gap_years",
    )
    sex: Header | None = Field(default=None, description="column with the sex")
    male: float = Field(default=1.0, description="its value for males")
    female: float | None = Field(
        default=None, description="its value for females; if not given, 0, 1, 2 or -1, whichever one is there too"
    )
    missing: tuple[float, ...] = Field(default=(), description="values that mean missing, e.g. -9999")


class Simulation(Table):
    """`[simulation]`: only a simulation reads it."""

    guard: bool = Field(default=True, description="disclosure control as in deployment; off only to check mathematics")


class Fractions(Table):
    """`[validation.fractions]`: parts of the patients, by keyed hash."""

    train: Fraction = Field(description="part trained on")
    validation: Fraction = Field(description="part the bias line is fitted on")
    test: Fraction = Field(description="part everything reported is computed on")


class Validation(Table):
    """`[validation]`: either `fractions` or `folds`."""

    fractions: Fractions | None = Field(default=None, description="train, validation and test; they sum to 1")
    folds: int | None = Field(
        default=None, ge=2, le=20, description="patient-wise cross-fitting; a small site holds patients out in fewer"
    )
    final_model: bool = Field(
        default=False,
        description="with folds: make one more model on everybody, to be exported; sites that only validate judge it",
    )
    sites: tuple[Name, ...] = Field(
        default=(),
        description="sites that only validate: they train nothing, and nothing fitted on them is applied to others",
    )


class Privacy(Table):
    """`[privacy]`."""

    mode: Literal["none", "sample", "client"] = Field(
        default="none",
        description="differential privacy: none, for each patient (sample), or for each site as a whole (client)",
    )
    epsilon: float | None = Field(default=None, gt=0, description="privacy budget ε of the campaign")
    delta: float | None = Field(
        default=None, ge=1e-11, lt=1, description="δ, well below one over the patients of a site"
    )
    noise_multiplier: float | None = Field(default=None, gt=0, description="noise over clip norm, instead of ε")
    clip_norm: float | None = Field(
        default=None,
        gt=0,
        description="L2 norm that one patient's gradient, or with client one site's update, is clipped to",
    )
    validation_share: float = Field(
        default=0.4,
        ge=0,
        le=0.9,
        description="with sample: part of ε that the noised validation errors and bias line would cost alone; 0 tells "
        "them without noise, outside the guarantee",
    )
    largest_error_years: float | None = Field(
        default=None,
        gt=0,
        le=130,
        description="with sample: errors beyond count as this in noised sums; if not given, a third of the ages' range",
    )
    secure_aggregation: bool = Field(
        default=False, description="hide each site's sums from the coordinator, who sees only those over all sites"
    )
    minimum_sites: int = Field(
        default=3, ge=2, le=10_000, description="with secure_aggregation: fewest sites in a sum that is opened"
    )
    results_by_site: bool = Field(default=False, description="with secure_aggregation: ask for results by site too")
    site_keys: dict[Name, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default_factory=dict,
        description="with secure_aggregation: each site's public key as fedage site audit key prints it there; sites "
        "know each other by these, so that compare them before approving",
    )
    minimum_count: int = Field(default=10, ge=1, le=1000, description="fewest patients behind any released cell")
    largest_share: float = Field(
        default=0.5,
        ge=0.1,
        le=1,
        description="largest share of one patient in the absolute contributions to a sum of products; 1 for any",
    )
    patients_per_column: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="fewest patients of a site for each column whose products leave it; 0 for any",
    )


class Bias(Table):
    """`[bias]`: age-bias correction, fitted on held-out healthy patients."""

    method: Literal["linear", "age-level"] = Field(default="linear", description="form of the correction")
    scope: Literal["site", "pooled", "partial"] = Field(default="site", description="one line a site, or one for all")
    scale: Literal["de-lange", "cole"] = Field(
        default="de-lange", description="which gap the survival analysis uses; both hazard ratios are reported"
    )


class CoxModel(Table):
    """One `[[survival.models]]`: its covariates beside what it is called."""

    name: Name = Field(description="what the table calls this model")
    covariates: tuple[Column, ...] = Field(min_length=1, description="columns, in the order reported")
    by_site: bool = Field(default=True, description="stratify by site (each site its own baseline hazard)")


class Survival(Table):
    """`[survival]`: time, event, models, ties, strata, grid."""

    time: Column = Field(default="time_years", description="outcome column with the follow-up time in years")
    event: Column = Field(default="event", description="outcome column, 1 = event, 0 = censored")
    models: tuple[CoxModel, ...] = Field(default=(), description="Cox models, each a name and its covariates")
    ties: Literal["efron", "breslow"] = Field(default="efron", description="tied event times")
    strata: tuple[Column, ...] = Field(default=(), description="columns stratified on inside every site")
    time_grid_years: float = Field(
        default=0.25, ge=0, description="times are rounded up to this grid; 0 keeps exact times (then no tables leave)"
    )
    table_times_years: tuple[NotNegative, ...] = Field(
        default=(),
        description="times at which tables leave a site (Kaplan-Meier, log-rank, unstratified Cox); the sites agree on "
        "those between which every cell of each holds privacy.minimum_count patients or none",
    )
    curves_from_patients: int = Field(
        default=0,
        ge=0,
        description="sites with fewer followed patients are left out of those tables: small sites coarsen them for "
        "all; 0 leaves none out",
    )
    split_gap_at: Literal["median", "zero"] = Field(default="median", description="what makes a gap high or low")
    curves_by: Column | None = Field(
        default=None, description="column of 0 and 1 whose groups the curves compare, instead of high and low gap"
    )


class Groups(Table):
    """`[groups]`: two groups of patients compared by their gap, inside each site."""

    column: Column = Field(description="outcome column that tells the groups")
    equals: float = Field(description="its value for the group of interest, e.g. patients")
    reference: float = Field(description="its value for the reference group, e.g. controls")
    covariates: tuple[Column, ...] = Field(default=("age_years",), description="columns held fixed beside the site")


T = TypeVar("T", bound=Table)


class Analyses(Table):
    """`[analyses.NAME]`: further analyses, each with the options of its own file."""

    model_config = ConfigDict(frozen=True, extra="allow", allow_inf_nan=False, defer_build=True)

    def asked_for(self) -> tuple[str, ...]:
        """Their names, in the file's order."""
        return tuple(self.model_extra or {})

    def options(self, name: str, kind: type[T]) -> T:
        """What the file says of one, its defaults if it does not ask for it."""
        return kind.model_validate((self.model_extra or {}).get(name, {}))


FOLDS_OF_A_BUNDLE = 5
"""Where a model is only validated, folds are those by which each site's own bias line is fitted without whom it
corrects."""
Role = Literal["train", "validate"]


def _validation() -> Validation:
    return Validation(fractions=Fractions(train=0.7, validation=0.15, test=0.15))


class Campaign(Table):
    """A whole campaign file. `digest` is the SHA-256 of the file's bytes, as `sha256sum FILE` prints it.

    What follows from the estimator that the file names is filled in when it is read: age limits that the file does not
    state, `predicted_columns`, those that the estimator predicts, and `image_shapes`, the sides of the images it takes.
    """

    campaign: About
    estimator: EstimatorChoice | None = None
    cohort: CohortChoice = Field(default_factory=CohortChoice)
    table: TableChoice | None = None
    training: Training | None = None
    validation: Validation = Field(default_factory=_validation)
    privacy: Privacy = Field(default_factory=Privacy)
    bias: Bias = Field(default_factory=Bias)
    survival: Survival | None = None
    groups: Groups | None = None
    analyses: Analyses = Field(default_factory=Analyses)
    simulation: Simulation = Field(default_factory=Simulation)
    predicted_columns: tuple[str, ...] = ()
    image_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    text: str = Field(repr=False, description="the file as it was read")
    digest: str = Field(description="SHA-256 of the file's bytes, hexadecimal")
    role: Role = Field(default="train", description="of the site that reads the file, see `at`; not in the file")
    site: str = Field(default="", description="that site, see `at`; empty at the coordinator")

    def role_of(self, site: str) -> Role:
        """What a site does by the file: train, judged by its held-out patients, or only validate."""
        return "validate" if self.bundle is not None or site in self.validation.sites else "train"

    def at(self, site: str) -> Self:
        """The file as a site reads it."""
        return self.model_copy(update={"role": self.role_of(site), "site": site})

    @property
    def training_sites(self) -> tuple[str, ...]:
        """The sites of `campaign.sites` that do not only validate."""
        return tuple(site for site in self.campaign.sites if self.role_of(site) == "train")

    @property
    def validates(self) -> bool:
        """Whether the site that reads the file only validates."""
        return self.role == "validate"

    @property
    def bundle(self) -> str | None:
        """SHA-256 of the bundle that is validated; None where a model is made."""
        return self.estimator.bundle if self.estimator is not None else None

    @property
    def bundle_needed(self) -> str | None:
        """SHA-256 of the bundle that travels to the sites, to be validated or to begin with; None without one."""
        return self.bundle or (self.training.start_bundle if self.training is not None else None)

    @property
    def final_fold(self) -> int | None:
        """What a request gives as its fold for the model on everybody, or the bundle's; None without such a model.

        One past the number that stands for all folds together.
        """
        folds = self.validation.folds
        return folds + 1 if folds is not None and (self.validation.final_model or self.bundle is not None) else None

    @property
    def models(self) -> int:
        """How many models a run makes: one, or one a fold, and one more on everybody where the file asks for it."""
        return (self.validation.folds or 1) + self.validation.final_model

    @property
    def noises_validation(self) -> bool:
        """Whether validation errors and bias line are told with noise, and charged."""
        return self.privacy.mode == "sample" and self.privacy.validation_share > 0 and self.bundle is None

    @property
    def quorum(self) -> int:
        """Sites that must answer for a step to count; 1 where nothing is trained in rounds."""
        return self.training.quorum if self.training else 1

    @property
    def cell_minimum(self) -> int:
        """Fewest patients behind a cell: `privacy.minimum_count`, or 1 in a simulation that has no guard."""
        return self.privacy.minimum_count if self.simulation.guard else 1

    @property
    def quorum_wait_s(self) -> float:
        """Seconds that a run waits for lost sites where the quorum is not there."""
        given = self.training.quorum_wait_s if self.training else None
        return min(QUORUM_WAIT_S, self.deadline_s) if given is None else given

    @property
    def deadline_s(self) -> float:
        """Seconds a site has for one message."""
        return self.training.round_deadline_s if self.training else DEADLINE_S
