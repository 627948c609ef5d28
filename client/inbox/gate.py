"""Who asks, for which campaign, on what terms: every verified message passes here before a handler sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.inbox.site import Site
from fedage.common.campaign import Campaign
from fedage.common.networks.roles import ArrayRoles
from fedage.common.protocol.messages import DESCRIBE, Payload, Request, RequestRefused

if TYPE_CHECKING:  # the policy, the ledger and their databases: only where there are any
    from fedage.client.consent.ledger import Balance
    from fedage.client.consent.terms import Terms
    from fedage.common.privacy.accountant import Budget, Mechanism


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a handler is given: an admitted request.

    Parameters
    ----------
    campaign
        The approved file; at a deployed site its minimum count is the larger of its own and the site's.
    site_cohort
        The campaign's patients at this site; at a deployed site those frozen at approval.
    terms
        What the site's rules say; None in simulation.
    """

    site: Site
    campaign: Campaign
    request: Request
    payload: Payload
    site_cohort: SiteCohort
    terms: Terms | None = None

    @property
    def minimum_count(self) -> int:
        """Fewest patients behind anything that leaves."""
        return self.campaign.cell_minimum if self.site.guard else 1

    def bring_model(self, model: str) -> None:
        """Account for the model of a training, given by its digest; a run brings one for each round of each fold.

        Raises
        ------
        RequestRefused
            Rule `another-model`.
        """
        if self.site.rules is not None:
            self.site.rules.run_limits.bring_model(self.request, model=model)

    def charge(self, mechanism: Mechanism, *, content: str, total: Budget) -> Balance | None:
        """Charge a private training to the site's ledger before it begins; None in simulation, which has no ledger.

        Raises
        ------
        RequestRefused
            Rule `budget` or `campaign-epsilon`, if it would pass the data set's budget or the campaign's total.
        """
        if self.site.rules is None or self.terms is None:
            return None
        return self.site.rules.charge(self.terms, self.request, mechanism, content=content, total=total)

    def is_same_answer(self, *, content: str, sha256: str) -> bool:
        """Whether a charged training gave this answer before, or gives its first; True in simulation."""
        return self.site.rules is None or self.site.rules.ledger.is_same_answer(content=content, sha256=sha256)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a handler gives back, and what the audit log says of it.

    Parameters
    ----------
    info
        JSON for the reply's head.
    payload
        Arrays that leave.
    patients, smallest_cell
        How many patients are behind it, and the smallest group of them that a number is about.
    epsilon
        ε charged for it.
    steps, withheld
        Steps answered, and those withheld, each with its rule and reason.
    roles
        What the arrays of an update are; None for anything else.
    """

    info: Mapping[str, Any]
    payload: Payload = field(default_factory=dict)
    patients: int | None = None
    smallest_cell: int | None = None
    epsilon: float = 0.0
    steps: tuple[str, ...] = ()
    withheld: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    roles: ArrayRoles | None = None


def admit(site: Site, request: Request, payload: Payload) -> Work:
    """The work that a verified request asks for.

    Raises
    ------
    RequestRefused
        Rules `digest`, `not-approved`, `no-table`; at a deployed site those of its policy and of its frozen cohorts.
    """
    if request.kind == DESCRIBE:
        if hashlib.sha256(request.campaign.encode()).hexdigest() != request.digest:
            raise RequestRefused("digest", "the campaign file sent does not have the digest it was offered under")
        site.offer(request.campaign, digest=request.digest)
    if site.rules is not None:
        site.rules.policy.wait_until_readable()
        terms = site.rules.terms(request)
        return Work(
            site=site,
            campaign=terms.campaign,
            request=request,
            payload=payload,
            site_cohort=terms.site_cohort,
            terms=terms,
        )
    campaign = site.approved(request.digest)
    if campaign is None:
        raise RequestRefused("not-approved", f"{site.name} has not approved this campaign")
    return Work(site=site, campaign=campaign, request=request, payload=payload, site_cohort=site.cohort(campaign))
