"""The frozen objects `policy.toml` becomes. One class a table of the file; every default is the safe one.

A refusal names its rule (`decide.py`). What the file leaves out is as `Policy()` has it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedage.common.campaign.types import Name, Table

Modality = Annotated[str, Field(pattern=r"^[A-Z0-9]{2,16}$")]
KindName = Literal["describe", "train", "evaluate", "analyse"]
ExceptionName = Literal["single-site-models", "robust-median"]
"""What leaves a site and is no sum: the models that single sites trained, the coordinate-wise median of updates."""

WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ALL_KINDS: tuple[KindName, ...] = ("describe", "train", "evaluate", "analyse")
DEFAULT_DATA_SET = "all"
"""The data set of a site whose policy names none: everything in its store."""


class Requests(Table):
    """`[requests]`: who may ask for what."""

    coordinators: tuple[str, ...] = Field(
        default=(),
        description="fingerprints of the coordinators allowed; empty means the one pinned at fedage site init",
    )
    kinds: tuple[KindName, ...] = Field(default=ALL_KINDS, description="message kinds answered")
    estimators: tuple[Name, ...] = Field(default=(), description="estimators allowed; empty means any installed one")
    exceptions: tuple[ExceptionName, ...] = Field(default=(), description="what may leave though it is no sum")
    runs_per_campaign: int = Field(default=10, ge=1, le=10_000, description="runs of one campaign file answered, ever")
    runs: int = Field(
        default=100, ge=1, le=1_000_000, description="runs of all campaign files on one data set answered, ever"
    )
    cohorts: int = Field(
        default=20, ge=1, le=10_000, description="different cohorts of patients that may be asked for, refused ones too"
    )
    campaigns: int = Field(default=50, ge=1, le=100_000, description="campaign files that may be approved, ever")


class Approval(Table):
    """`[approval]`: who says yes to a campaign file."""

    mode: Literal["manual", "automatic"] = Field(
        default="manual", description="manual: fedage site approve; automatic: whatever this policy allows"
    )
    bundles: Literal["manual", "automatic"] = Field(
        default="manual", description="the same for campaigns that validate a model which no campaign here made"
    )


class Disclosure(Table):
    """`[disclosure]`: what may leave."""

    minimum_count: int = Field(
        default=10, ge=1, le=100_000, description="fewest patients behind any number; a campaign may ask for more"
    )
    largest_share: float = Field(
        default=0.5,
        ge=0.1,
        le=1,
        description="largest share of one patient in the absolute contributions to a sum of products; 1 for any",
    )
    patients_per_column: float = Field(
        default=2.0, ge=0, le=1000, description="fewest patients for each column whose products leave; 0 for any"
    )
    age_step_years: float = Field(
        default=5.0, ge=0, le=130, description="age limits of cohorts are multiples of this; 0 for any"
    )
    secure_aggregation: Literal["optional", "required"] = Field(
        default="optional", description="whether each campaign has to hide this site's sums from the coordinator"
    )
    may_be_left_out: bool = Field(
        default=False,
        description="whether hidden sums are opened with and without this site, whose own then follow by subtraction",
    )
    tells_own_results: bool = Field(
        default=False, description="whether this site tells its own results beside hidden sums, if a campaign asks"
    )


class Hours(Table):
    """`[hours]`: when work may begin, by the wall clock of the site. A weekday left out is closed."""

    time_zone: str = Field(min_length=1, max_length=64, description="a name of the IANA database, e.g. Europe/Berlin")
    monday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"; past midnight is allowed')
    tuesday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"')
    wednesday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"')
    thursday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"')
    friday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"')
    saturday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"')
    sunday: tuple[str, ...] = Field(default=(), description='windows as "HH:MM-HH:MM"')

    def windows(self, weekday: int) -> tuple[str, ...]:
        """The windows of a weekday, 0 = Monday."""
        windows: tuple[str, ...] = getattr(self, WEEKDAYS[weekday])
        return windows


class DataSet(Table):
    """One `[data_sets.NAME]`: patients that campaigns may use, and what they may cost."""

    modality: tuple[Modality, ...] = Field(default=(), description="DICOM modalities; empty means any")
    age_min_years: float = Field(default=0.0, ge=0, le=130, description="youngest age offered")
    age_max_years: float = Field(default=130.0, ge=0, le=130, description="oldest age offered")
    manufacturer: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        default=(), description="manufacturers as the images name them; empty means any"
    )
    epsilon: float | None = Field(
        default=None, gt=0, le=1000, description="ε this data set may ever spend; none: training need not be private"
    )
    delta: float | None = Field(default=None, ge=1e-11, lt=0.01, description="δ of its ε")


class Policy(Table):
    """A whole policy. With no file it is this one as it stands."""

    requests: Requests = Requests()
    approval: Approval = Approval()
    disclosure: Disclosure = Disclosure()
    hours: Hours | None = None
    data_sets: dict[Name, DataSet] = Field(default_factory=lambda: {DEFAULT_DATA_SET: DataSet()})
