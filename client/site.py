"""What the handlers know of the site they run at, deployed or simulated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from fedage.common.campaign import Campaign
from fedage.common.cohort import Cohort
from fedage.common.estimators.base import Samples

if TYPE_CHECKING:
    from fedage.client.rules import SiteRules


@dataclass(frozen=True)
class SiteCohort:
    """A campaign's patients at this site, in the fixed order of their hashed identifiers.

    Parameters
    ----------
    cohort
        Columns (n,): `age_years`, `is_male`, `healthy`, split columns, outcomes.
    samples
        Preprocessed samples of all patients, images read from disk by rows; None in a campaign without an estimator.
    excluded
        Patients left out, by reason.
    rejected_files, rejected_samples
        Files and images set aside, by reason code.
    snapshot
        A digest that is equal exactly for equal cohorts, or empty where it is not kept.
    features
        Columns of the site's table that an estimator may use; empty for images.
    keys
        Keyed hashes of the patients in row order; empty in simulated tables.
    """

    cohort: Cohort
    samples: Samples | None
    excluded: Mapping[str, int] = field(default_factory=dict)
    rejected_files: Mapping[str, int] = field(default_factory=dict)
    rejected_samples: Mapping[str, int] = field(default_factory=dict)
    snapshot: str = ""
    features: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)


class Site(Protocol):
    """A site as its handlers see it."""

    @property
    def name(self) -> str:
        """The site's name in results."""

    @property
    def coordinator_key(self) -> Ed25519PublicKey | None:
        """The pinned coordinator; None in simulation only."""

    @property
    def rules(self) -> SiteRules | None:
        """Policy, approvals, ledger and audit log of a deployed site; None in simulation only."""

    @property
    def guard(self) -> bool:
        """Whether small cells are withheld; False only in a simulation that says so."""

    @property
    def threads(self) -> int:
        """CPU threads a training may use."""

    @property
    def device(self) -> str:
        """`auto`, `cpu` or `cuda`."""

    def approved(self, digest: str) -> Campaign | None:
        """The approved campaign with this digest, or None."""

    def offer(self, text: str, *, digest: str) -> None:
        """Keep an offered file for the administrator to read."""

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The campaign's patients, with samples ready."""

    def state_dir(self, digest: str) -> Path:
        """Where the site keeps what belongs to a campaign (predictions); created on demand."""
