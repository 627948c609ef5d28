"""Rounds of training: the model out, updates in, their mean, and how well the model of each round did."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy

from fedage.common.analyses.base import Done, Iterate, Result
from fedage.common.analyses.plan import VALIDATION, registered
from fedage.common.campaign.types import Training
from fedage.common.continuity import StepLimits
from fedage.common.estimators.configure import step_limits
from fedage.common.networks.arrays import Weights
from fedage.common.networks.roles import ArrayRoles
from fedage.common.protocol import TRAIN, join_iterates, model_of
from fedage.common.statistic import total
from fedage.server.aggregate import Update, UpdateRefused, check_update, federated_average, limited_step
from fedage.server.run_model import RunModel
from fedage.server.session import Answer, CampaignFailed, Session
from fedage.server.sums import usable_statistics

DECIDING_SHARE = 0.9
"""Share of a round's patients above which a site is named: the mean of the updates is its own."""


@dataclass
class RoundRecord:
    """What one round recorded. Validation figures are those of the model *after* the round."""

    number: int
    seconds: float
    sites: list[str]
    train_loss: float | None
    update_norm: float
    validation: Result | None = None
    validation_by_site: dict[str, Result] = field(default_factory=dict)
    fold: int = 0
    clipped: bool = False
    """Whether the mean of the updates went further than the bounds of a step or of the run."""


@dataclass
class _Validation:
    """The validation sums that come with each training answer, always of the model that was sent."""

    session: Session

    def __post_init__(self) -> None:
        self.analysis = registered(self.session.campaign)[VALIDATION]
        # It takes one exchange (`Evaluation.baseline` is false): every answer holds all there is.
        self.iterate: Iterate = self.analysis.first()

    def read(self, answers: dict[str, Answer], *, round_number: int) -> tuple[Result | None, dict[str, Result]]:
        layout = self.analysis.layout(self.iterate)
        statistics, _ = usable_statistics(
            self.session, VALIDATION, layout, answers, kind=TRAIN, round_number=round_number
        )
        if not statistics:
            return None, {}
        outcome = self.analysis.combine(total(layout, statistics), self.iterate)
        by_site = {site: self.analysis.combine(statistic, self.iterate) for site, statistic in statistics.items()}
        return (
            outcome.result if isinstance(outcome, Done) else None,
            {site: result.result for site, result in by_site.items() if isinstance(result, Done)},
        )


def save_model(path: Path, weights: Weights, *, about: dict[str, str | int]) -> None:
    """Write the model atomically, so that a run cut off keeps its last finished round."""
    partial = path.with_suffix(".partial")
    # One metadata entry: the format keeps several in no fixed order, and the same model must be the same bytes.
    safetensors.numpy.save_file(weights, partial, metadata={"fedage": json.dumps(about, sort_keys=True)})
    partial.replace(path)


def train(
    session: Session,
    made: RunModel,
    *,
    training: Training,
    roles: ArrayRoles,
    path: Path,
    records: list[RoundRecord],
    described: Mapping[str, Answer],
    fold: int = 0,
) -> Weights:
    """All rounds with the sites `described`; each joins `records` as it ends, so that a run cut off keeps them.

    Raises
    ------
    CampaignFailed
        If a round has fewer answers than the quorum; the model of the last finished round is on disk.
    """
    campaign = session.campaign
    validation = _Validation(session)
    first = len(records)
    limits = step_limits(campaign)
    if limits is None:
        raise CampaignFailed("the campaign file trains nothing in rounds")
    weights, path_norm = made.weights, 0.0
    knowing: set[str] = set()
    """Sites that have answered a model of this run: to others go the sums of a table's first model as well."""
    for number in range(1, training.rounds + 1):
        started = time.monotonic()
        all_know = knowing.issuperset(session.training_sites)
        payload: dict[str, Any] = {
            **RunModel(weights, None if all_know else made.sums).payload,
            **join_iterates({VALIDATION: validation.iterate}),
        }
        answers = session.ask(TRAIN, payload, round_number=number, fold=fold)
        knowing = set(answers)
        overall, by_site = validation.read(answers, round_number=number)
        if len(records) > first:
            records[-1].validation, records[-1].validation_by_site = overall, by_site
            _tell(session, records[-1])
        updates = _updates(session, answers, weights, number, described=described, roles=roles, limits=limits)
        session.require_quorum(updates, step=f"round {number}", kind=TRAIN)
        following, norm = federated_average(weights, updates)
        weights, step, clipped = limited_step(weights, following, roles, limits=limits, path=path_norm)
        path_norm += step
        if clipped:
            session.events.emit("step-clipped", number=number, fold=fold, norm=limits.step_norm)
        loss = _mean_loss({site: (answers[site].info.loss, update.n) for site, update in updates.items()})
        save_model(
            path,
            weights,
            about={"campaign_digest": campaign.digest, "round": number, "fold": fold},
        )
        seconds = time.monotonic() - started
        records.append(RoundRecord(number, seconds, sorted(updates), loss, norm, fold=fold, clipped=clipped))
        session.events.emit(
            "round",
            number=number,
            of=training.rounds,
            fold=fold,
            folds=campaign.validation.folds or 1,
            seconds=round(records[-1].seconds, 2),
            sites=sorted(updates),
            train_loss=loss,
        )
    return weights


def _mean_loss(losses: Mapping[str, tuple[float | None, int]]) -> float | None:
    """The mean over patients of the losses that sites told, by site with its patients; None if none told any."""
    told = [(loss, n) for loss, n in losses.values() if loss is not None]
    return sum(loss * n for loss, n in told) / sum(n for _, n in told) if told else None


def _tell(session: Session, record: RoundRecord) -> None:
    if record.validation is not None:
        session.events.emit("validation", round=record.number, mae_years=record.validation["mae_years"])


def _updates(
    session: Session,
    answers: dict[str, Answer],
    weights: Weights,
    number: int,
    *,
    described: Mapping[str, Answer],
    roles: ArrayRoles,
    limits: StepLimits,
) -> dict[str, Update]:
    """The usable updates; one that breaks a rule is set aside and said so, and so is one that was clipped."""
    updates: dict[str, Update] = {}
    note = session.attendance.note
    for site, answer in answers.items():
        update = Update(change=model_of(answer.payload), n=answer.info.n)
        try:
            patients = described[site].info.patients
            check_update(update, weights, patients=patients, roles=roles, limits=limits)
        except UpdateRefused as refusal:
            note(site, TRAIN, f"update set aside: {refusal}", round_number=number, set_aside_by=refusal.rule)
            continue
        updates[site] = update
        if answer.info.clipped:
            told = f"its update was clipped to the bounds of a step (training.max_step_norm = {limits.step_norm:g})"
            note(site, TRAIN, told, round_number=number)
    _tell_who_decides(session, updates, number)
    return updates


def _tell_who_decides(session: Session, updates: Mapping[str, Update], number: int) -> None:
    """Name a site that alone decides the model: large registries exist, and so do sites that claim to be one."""
    patients = sum(update.n for update in updates.values())
    for site, update in updates.items():
        if len(updates) > 1 and update.n > DECIDING_SHARE * patients:
            share = f"it has more than {DECIDING_SHARE:.0%} of the patients trained on, and so decides the model"
            session.attendance.note(site, TRAIN, share, round_number=number)
