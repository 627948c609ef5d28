"""The updates of a round as they arrive: which count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace

from fedage.common.analyses.evaluation.metrics import VALIDATION
from fedage.common.campaign.types import Training
from fedage.common.networks.arrays import Weights
from fedage.common.networks.masked_update import UPDATE_WORDS, mean_update, update_size
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits
from fedage.common.privacy.masked_statistic import statistic_words, summed_statistic
from fedage.common.privacy.ring import OutOfRange
from fedage.common.protocol.messages import TRAIN, Payload, model_of, without_model
from fedage.common.protocol.secure import UPDATE
from fedage.common.statistics.statistic import FloatArray, Layout
from fedage.server.campaign.strategies import Strategy, Update, UpdateRefused, check_update
from fedage.server.sites.secure_sums import Summed, ask_summed
from fedage.server.sites.session import Answer, CampaignFailed, Session
from fedage.server.sites.setting_up import Reserved
from fedage.server.sites.site_info import Privacy

DECIDING_SHARE = 0.9
"""Share of a round's patients above which a site is named: the mean of the updates is its own."""


class NotAddedUp(CampaignFailed):
    """The sum of a round's hidden updates was not opened: some site that has to be in it has left."""


@dataclass
class Accepted:
    """The usable updates of a round, handed to the strategy as they arrive.

    One that breaks a rule is set aside and said so, and so is one that was clipped.
    """

    session: Session
    strategy: Strategy
    weights: Weights
    number: int
    _: KW_ONLY
    described: Mapping[str, Answer]
    roles: ArrayRoles
    limits: StepLimits
    patients: dict[str, int] = field(default_factory=dict)
    """By site, how many patients its update was trained on; 0 where that is hidden."""
    privacy: dict[str, Privacy] = field(default_factory=dict)
    """By site, what its updates have cost until now."""
    loss: float | None = None
    sums: dict[str, FloatArray] = field(default_factory=dict)
    """What came with hidden updates, over all sites."""
    summed: Summed = field(default_factory=lambda: Summed({}))

    def take_sum(
        self, payload: Payload, keys: Reserved, *, layout: Layout, fold: int, training: Training
    ) -> dict[str, Answer]:
        """Ask for updates that only their sum is seen of, and hand on their mean as one update; the answers.

        Raises
        ------
        NotAddedUp
            If the sum could not be opened.
        CampaignFailed
            If it is none of updates.
        """
        summed = ask_summed(
            self.session,
            TRAIN,
            payload,
            blocks={
                UPDATE: (update_size(self.weights), UPDATE_WORDS),
                VALIDATION: (layout.size, statistic_words(layout)),
            },
            round_number=self.number,
            fold=fold,
            wait_s=training.wait_after_quorum_s,
            reserved=keys,
        )
        self.summed = summed
        if (rows := summed.totals.get(UPDATE)) is None:
            why = summed.refused.get(UPDATE, "no site answered")
            missing = self.session.attendance.why_missing(
                summed.answers, expected=self.session.campaign.campaign.sites, kind=TRAIN
            )
            raise NotAddedUp(f"round {self.number}: the sites' updates were not added up: {why} ({missing})")
        try:
            mean = mean_update(rows, self.weights, self.roles, limits=self.limits, sites=summed.members)
            update = Update(site="all sites", change=mean.change, n=mean.n)
            check_update(update, self.weights, patients=mean.n, roles=self.roles, limits=self.limits)
        except (OutOfRange, UpdateRefused) as refused:
            raise CampaignFailed(f"round {self.number}: the sum of the updates is none of sites': {refused}") from None
        self.strategy.accept(update)
        self.loss = mean.loss if self.session.campaign.privacy.mode == "none" else None
        self.patients = dict.fromkeys(summed.contributors[UPDATE], 0)
        self.privacy = {s: a.info.privacy for s, a in summed.answers.items() if a.info.privacy is not None}
        if (rows := summed.totals.get(VALIDATION)) is not None:
            self.sums[VALIDATION] = summed_statistic(layout, rows, sites=summed.members)
        return summed.answers

    def take(self, answer: Answer) -> Answer:
        """Check an answer's update and hand it on; the answer without it, so that no two are in memory at once."""
        told, training = answer.info, self.session.campaign.training
        update = Update(
            site=answer.site,
            change=model_of(answer.payload),
            n=told.n,
            steps=told.steps,
            control_share=told.control_share,
        )
        tells_steps = training is not None and training.strategy == "scaffold"
        without = replace(answer, payload=without_model(answer.payload))
        try:
            check_update(
                update,
                self.weights,
                patients=self.described[answer.site].info.patients,
                roles=self.roles,
                limits=self.limits,
                most_steps=training.local_epochs * told.n if training is not None and tells_steps else None,
            )
        except UpdateRefused as refusal:
            self.note(answer.site, f"update set aside: {refusal}", set_aside_by=refusal.rule)
            return without
        self.strategy.accept(update)
        self.patients[answer.site] = update.n
        if answer.info.privacy is not None:
            self.privacy[answer.site] = answer.info.privacy
        if answer.info.clipped:
            bound = f"training.max_step_norm = {self.limits.step_norm:g}"
            self.note(answer.site, f"its update was clipped to the bounds of a step ({bound})")
        if answer.info.batch_parts > 1:
            cut = f"a batch did not fit into its memory and was computed in {answer.info.batch_parts} parts"
            self.note(answer.site, cut)
        return without

    def tell_who_decides(self) -> None:
        """Name a site that alone decides the model: large registries exist, and so do sites that claim to be one."""
        total = sum(self.patients.values())
        for site, n in sorted(self.patients.items()):
            if len(self.patients) > 1 and n > DECIDING_SHARE * total:
                share = f"it has more than {DECIDING_SHARE:.0%} of the patients trained on, and so decides the model"
                self.note(site, share)

    def note(self, site: str, what: str, *, set_aside_by: str = "") -> None:
        """Record what there is to say of a site in this round."""
        self.session.attendance.note(site, TRAIN, what, round_number=self.number, set_aside_by=set_aside_by)
