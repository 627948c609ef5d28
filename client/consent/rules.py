"""What a hospital decides, applied to every message: policy, approval, frozen cohort, ε ledger, audit log.

A simulated site has none of it. Everything here is asked anew for each message, so that a change of the policy, an
approval and a revocation act at once.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from datetime import datetime
from pathlib import Path

from fedage.client.audit import AuditLog, Direction, Entry, Kind
from fedage.client.audit.folding import Folding
from fedage.client.audit.log import utc_now
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.accounts.nonces import Claims, Nonces
from fedage.client.consent.accounts.older_accounts import take_over_older_accounts
from fedage.client.consent.accounts.released_columns import RELEASED_FILE
from fedage.client.consent.accounts.run_limits import RunLimits
from fedage.client.consent.approvals import ApprovalError, Approvals, CampaignsUsedUp
from fedage.client.consent.cohort_cache import CohortCache
from fedage.client.consent.cohort_distance import CohortsUsedUp, FewValuesChanged, SnapshotTooClose
from fedage.client.consent.frozen_values import frozen_of
from fedage.client.consent.ledger import Balance, BudgetExceeded, CampaignTotalExceeded, Ledger
from fedage.client.consent.policy import Allowed, PolicyErrors, PolicyFile, Refused, facts_of
from fedage.client.consent.similar_columns import account_of, similar_columns
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.consent.snapshots import Snapshot, SnapshotChanged, Snapshots
from fedage.client.consent.terms import Approved, Terms, budget_of, with_disclosure
from fedage.client.disclosure.guard import Withheld
from fedage.client.site.cancel import wait_for
from fedage.client.site.durable import LOCK_WAIT_S
from fedage.common import estimators
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import modalities
from fedage.common.privacy.accountant import Budget, ChargeRefused, Mechanism
from fedage.common.protocol.messages import DESCRIBE, Request, RequestRefused

logger = logging.getLogger(__name__)

ACCOUNTS_FOLDER = "accounts"


class SiteRules:
    """The rules of the site whose home is at `home`; safe to use from several threads.

    Parameters
    ----------
    coordinator
        Fingerprint of the pinned coordinator's key.
    site
        The site's name, by which a campaign file may give it a role.
    now
        The wall clock.
    lock_wait_s
        How long a file may be locked by another process before a message fails.

    Raises
    ------
    StoreUnavailable
        If one of the site's files cannot be used; from every method too.
    """

    def __init__(
        self,
        home: Path,
        *,
        coordinator: str,
        site: str = "",
        now: Callable[[], datetime] = utc_now,
        lock_wait_s: float = LOCK_WAIT_S,
    ) -> None:
        self.coordinator, self.home, self._site = coordinator, home, site
        self.approvals = Approvals(home)
        self.policy = PolicyFile(home)
        self.audit = AuditLog(home, now=now, lock_wait_s=lock_wait_s)
        self.folding = Folding(self.audit.append)
        self.nonces = Nonces(home, lock_wait_s=lock_wait_s)
        self.snapshots = Snapshots(home, lock_wait_s=lock_wait_s)
        self.ledger = Ledger(home, lock_wait_s=lock_wait_s)
        take_over_older_accounts(home, lock_wait_s=lock_wait_s)
        self.run_limits = RunLimits(home, lock_wait_s=lock_wait_s)
        self._now = now
        self._reader = SiteCohorts(home)
        self._cohorts = CohortCache(self._reader)
        self._noted: tuple[str | None] | None = None
        self._noting = threading.Lock()
        self.claims = Claims(self.nonces)
        self._approving = threading.Lock()

    def kinds(self) -> list[str]:
        """Message kinds that the policy answers; none if it cannot be read."""
        try:
            return list(self.policy.current().requests.kinds)
        except PolicyErrors:
            return []

    def data_sets(self) -> list[str]:
        """Names of the policy's data sets; none if it cannot be read."""
        try:
            return list(self.policy.current().data_sets)
        except PolicyErrors:
            return []

    def count(self, campaign: Campaign, allowed: Allowed) -> int:
        """How many patients the store has now for a campaign. Raises `RequestRefused` if it has nothing of the kind."""
        return self._reader.count(campaign.at(self._site), data_set=allowed.data_set)

    def known(self, digest: str) -> Campaign | None:
        """The campaign of a digest that was offered or approved here, if its file can be read."""
        with suppress(FedAgeError):
            if (found := self.approvals.campaign(digest)) is not None:
                return found.at(self._site)
        return None

    def decide(self, campaign: Campaign, *, kind: str, data_set: str | None = None) -> Allowed | Refused:
        """What the policy says to a kind of message of a campaign; the data set chosen at approval if none is given."""
        if data_set is None and (frozen := self.snapshots.of(campaign.digest)) is not None:
            data_set = frozen.data_set
        return self._decide(campaign, kind=kind, data_set=data_set)

    def _decide(self, campaign: Campaign, *, kind: str, data_set: str | None) -> Allowed | Refused:
        campaign = campaign.at(self._site)
        estimator = campaign.estimator
        modality: tuple[str, ...] = ()
        if estimator is not None:
            modality = modalities(estimators.make(estimator.name, estimator.options))
        facts = facts_of(
            campaign,
            kind=kind,
            coordinator=self.coordinator,
            at=self._now(),
            modality=modality,
            data_set=data_set,
        )
        return self.policy.decide(facts)

    def terms(self, request: Request) -> Terms:
        """Whether and on what terms a verified request is answered.

        Raises
        ------
        RequestRefused
            With the rule of the policy that refuses; `not-approved`; `declined`; `snapshot-changed`;
            `snapshot-too-close`; `runs`.
        """
        self._note_policy()
        campaign = self.known(request.digest)
        if campaign is None:
            raise self._not_approved(request.digest)
        frozen = self.snapshots.of(campaign.digest)
        decision = self._decide(campaign, kind=request.kind, data_set=frozen.data_set if frozen else None)
        if isinstance(decision, Refused):
            raise RequestRefused(decision.rule, decision.sentence)
        if not self.approvals.is_approved(request.digest):
            if request.kind != DESCRIBE:
                raise self._not_approved(request.digest)
            self._approve_by_itself(campaign)
            frozen = self.snapshots.of(campaign.digest)
        if request.kind != DESCRIBE:
            requests = self.policy.current().requests
            self.run_limits.begin_run(
                request,
                at_most=requests.runs_per_campaign,
                coordinator=self.coordinator,
                data_set=decision.data_set_name,
                at_most_in_all=requests.runs,
            )
        campaign = with_disclosure(campaign.at(self._site), decision)
        return Terms(campaign=campaign, allowed=decision, site_cohort=self._frozen(campaign, decision, frozen))

    def cohort(self, campaign: Campaign) -> SiteCohort:
        """The frozen cohort of an approved campaign, within its data set as the policy has it now.

        Raises
        ------
        RequestRefused
            If the policy refuses the campaign, or the cohort is no longer the frozen one.
        """
        decision = self.decide(campaign, kind=DESCRIBE)
        if isinstance(decision, Refused):
            raise RequestRefused(decision.rule, decision.sentence)
        of_site = with_disclosure(campaign.at(self._site), decision)
        return self._frozen(of_site, decision, self.snapshots.of(campaign.digest))

    def approve(
        self,
        campaign: Campaign,
        *,
        data_set: str | None = None,
        few_changes: bool = False,
        similar_columns: bool = False,
        unless_declined: bool = False,
    ) -> Approved:
        """Approve a campaign file and freeze its cohort; it acts at once, on a running agent too.

        Parameters
        ----------
        few_changes
            Approve anew although the values of a few patients only have changed since.
        similar_columns
            Let columns through that differ for a few patients from columns by which sums left before.
        unless_declined
            Refuse it if somebody has declined it by the time its cohort is read.

        Raises
        ------
        ApprovalError
            If the policy refuses it, or as many were approved as it allows.
        CohortsUsedUp
            If as many different cohorts were asked for as it allows.
        RequestRefused
            If this site has nothing of the kind that the campaign reads; with `unless_declined` rule `declined`.
        SnapshotTooClose
            If its cohort, or a part of it, differs from an earlier one by too few patients, and cannot be that one.
        FewValuesChanged
            If only a few patients' values have changed since this campaign was approved before.
        """
        decision = self.decide(campaign, kind=DESCRIBE, data_set=data_set)
        if isinstance(decision, Refused):
            names = f"; --data-set {' or '.join(self.data_sets())}" if decision.rule == "data-set" else ""
            raise ApprovalError(f"the site's policy refuses it (rule {decision.rule}): {decision.sentence}{names}")
        name, digest, minimum = decision.data_set_name, campaign.digest, decision.minimum_count
        requests, before = self.policy.current().requests, self.snapshots.campaigns()
        if digest not in before and len(before) >= requests.campaigns:
            raise CampaignsUsedUp(
                f"{CampaignsUsedUp.detail} (requests.campaigns = {requests.campaigns} in policy.toml)"
            )
        # As every later message reads it: the minimum count decides who is set aside, and so what is frozen.
        campaign = with_disclosure(campaign.at(self._site), decision)
        frozen_values = frozen_of(self._cohorts.read(campaign, decision.data_set), campaign)
        cohort_of = None

        def freeze() -> Snapshot:
            return self.snapshots.freeze(
                name,
                digest=digest,
                frozen_values=frozen_values,
                minimum_count=minimum,
                few_changes=few_changes,
                at_most=requests.cohorts,
            )

        try:
            snapshot = freeze()
        except SnapshotTooClose as close:
            if not set(close.patients) < set(frozen_values.patients):
                raise
            cohort_of = close.digest
            theirs = self._reader.read(campaign, data_set=decision.data_set, patients=frozenset(close.patients))
            frozen_values = frozen_of(theirs, campaign)
            snapshot = freeze()
        if unless_declined and self.approvals.is_declined(digest):
            raise self._not_approved(digest)
        with nullcontext() if similar_columns else suppress(Withheld):  # an account that is damaged answers nothing
            account_of(self.columns_folder, campaign, keys=snapshot.patients).accept(similar=similar_columns)
        self.audit.append(self._decision(Kind.APPROVE, campaign, patients=len(snapshot.patients)))
        self.approvals.approve(campaign.text)
        return Approved(campaign=campaign, allowed=decision, snapshot=snapshot, cohort_of=cohort_of)

    def similar_columns(self, campaign: Campaign, *, data_set: str | None = None) -> Mapping[str, tuple[str, str]]:
        """Columns of which sums would be withheld, as the store is now. Raises as `cohort` does."""
        decision = self.decide(campaign, kind=DESCRIBE, data_set=data_set)
        if isinstance(decision, Refused):
            raise RequestRefused(decision.rule, decision.sentence)
        if not (self.columns_folder / RELEASED_FILE).exists():
            return {}  # no sums by any column have left, so the cohort need not be read for it
        campaign = with_disclosure(campaign.at(self._site), decision)
        site_cohort = self._reader.columns(campaign, data_set=decision.data_set)
        return similar_columns(self.columns_folder, campaign, site_cohort)

    def decline(self, digest: str) -> None:
        """Say no to an offered campaign. Raises `ApprovalError` if none has this digest, or it is approved."""
        self.approvals.must_be_offered(digest)
        self.audit.append(self._decision(Kind.DECLINE, self.known(digest), digest=digest))
        self.approvals.decline(digest)

    def revoke(self, digest: str) -> None:
        """Take an approval back; the next message is refused. Raises `ApprovalError` if there is none."""
        self.approvals.must_be_approved(digest)
        self.audit.append(self._decision(Kind.REVOKE, self.known(digest), digest=digest))
        self.approvals.revoke(digest)

    def charge(self, terms: Terms, request: Request, mechanism: Mechanism, *, content: str, total: Budget) -> Balance:
        """Charge a private training to the ledger, on disk, before it begins; see `Ledger.charge`.

        Raises
        ------
        RequestRefused
            Rules `budget` and `campaign-epsilon`; rule `privacy-mechanism` for one that cannot be accounted for.
        """
        try:
            return self.ledger.charge(
                terms.allowed.data_set_name,
                digest=request.digest,
                round=request.round,
                fold=request.fold,
                content=content,
                mechanism=mechanism,
                budget=budget_of(terms.allowed.data_set),
                total=total,
            )
        except (BudgetExceeded, CampaignTotalExceeded) as exceeded:
            raise RequestRefused(exceeded.rule, exceeded.detail) from None
        except ChargeRefused:
            raise RequestRefused(
                "privacy-mechanism", "the campaign's noise and sampling cannot be accounted for at this site"
            ) from None

    def account_name(self, data_set: str) -> str:
        """What the account of a data set and this coordinator is called, over all campaigns."""
        return f"{self.coordinator[:32]}-{data_set}"

    @property
    def columns_folder(self) -> Path:
        """Where the site keeps the columns by which sums left, over all coordinators and data sets."""
        return self.home / ACCOUNTS_FOLDER

    def close(self) -> None:
        """Close the files."""
        self.folding.write()
        for file in (self.audit, self.nonces, self.snapshots, self.ledger, self.run_limits):
            file.close()

    def _frozen(self, campaign: Campaign, allowed: Allowed, frozen: Snapshot | None) -> SiteCohort:
        """The cohort frozen at approval: who came since is left out, who is gone or has other values refuses."""
        if frozen is None:
            raise RequestRefused(SnapshotChanged.rule, SnapshotChanged.detail)
        try:
            return self._cohorts.read(campaign, allowed.data_set, frozen=frozen)
        except SnapshotChanged as changed:
            raise RequestRefused(changed.rule, changed.detail) from None

    def _note_policy(self) -> None:
        """Write into the audit log which policy file is in force, whenever it is another one."""
        with self._noting:
            digest = self.policy.digest()
            if not self._noted or self._noted[0] != digest:
                self.audit.append(Entry(direction=Direction.SITE, kind=Kind.POLICY, digest=digest))
                self._noted = (digest,)

    def _approve_by_itself(self, campaign: Campaign) -> None:
        """Approve an offered campaign where the policy says so: once, if it is offered several times at once.

        Raises
        ------
        RequestRefused
            If the policy leaves it to a person, or a person said no.
        """
        wait_for(lambda: self._approving.acquire(blocking=False))
        try:
            if self.approvals.is_approved(campaign.digest):
                return
            if not self._approves_by_itself(campaign):
                raise self._not_approved(campaign.digest)
            self.approve(campaign, unless_declined=True)
        except SnapshotTooClose as close:
            # Attack: which of its limits a cohort misses tells who is near. Rule: the coordinator hears the same words
            # of all, the site's own log which it was. Residual risk: that one was missed, `requests.cohorts` times.
            logger.warning("an offered campaign was not approved (%s): %s", type(close).__name__, close)
            raise RequestRefused(SnapshotTooClose.rule, SnapshotTooClose.detail) from None
        except (FewValuesChanged, CohortsUsedUp, CampaignsUsedUp) as refusal:
            raise RequestRefused(refusal.rule, refusal.detail) from None
        except ApprovalError:
            raise RequestRefused(
                "campaigns", "as many campaign files were approved as this site's policy allows"
            ) from None
        finally:
            self._approving.release()

    def _approves_by_itself(self, campaign: Campaign) -> bool:
        approval = self.policy.current().approval
        automatic = approval.mode == "automatic" and (campaign.bundle_needed is None or approval.bundles == "automatic")
        return automatic and not self.approvals.is_declined(campaign.digest)

    def _not_approved(self, digest: str) -> RequestRefused:
        if self.approvals.is_declined(digest):
            return RequestRefused("declined", "this site's administrator declined this campaign")
        return RequestRefused(
            "not-approved",
            f"this site has not approved the campaign with digest {digest[:16]}…; "
            "its administrator can read and approve it (fedage site campaigns, fedage site approve)",
        )

    def _decision(
        self, kind: Kind, campaign: Campaign | None, *, digest: str | None = None, patients: int | None = None
    ) -> Entry:
        return Entry(
            direction=Direction.SITE,
            kind=kind,
            who=self.coordinator,
            campaign=campaign.campaign.name if campaign else None,
            digest=campaign.digest if campaign else digest,
            patients=patients,
        )
