"""Rounds of training: the model out, updates in, their mean, and how well the model of each round did."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy
from numpy.typing import NDArray

from fedage.common.analyses.base import Done, Iterate, Result
from fedage.common.analyses.evaluation.metrics import VALIDATION
from fedage.common.analyses.plan import registered
from fedage.common.campaign.learning_rate import learning_rate
from fedage.common.campaign.types import Training
from fedage.common.estimators.configure import step_limits, update_limits
from fedage.common.networks.arrays import Weights
from fedage.common.networks.roles import ArrayRoles
from fedage.common.protocol.basis import Basis
from fedage.common.protocol.messages import TRAIN, join_iterates
from fedage.common.protocol.secure import UPDATE
from fedage.common.statistics.statistic import FloatArray, Statistic, total
from fedage.deploy.machine.atomic import write_atomically
from fedage.server.campaign.accepted import Accepted, NotAddedUp
from fedage.server.campaign.best_round import BestRound
from fedage.server.campaign.resting import FAILURES, REST, Resting
from fedage.server.campaign.run_model import RunModel
from fedage.server.campaign.strategies import RoundStart, Strategy
from fedage.server.campaign.strategies.updates import limited_step
from fedage.server.sites.kept_steps import step_of
from fedage.server.sites.late_sites import LateSites
from fedage.server.sites.session import Answer, CampaignFailed, Session
from fedage.server.sites.setting_up import reserve
from fedage.server.sites.sums import usable_statistics
from fedage.server.sites.waiting import Enough

BLOCKS = {UPDATE: "", VALIDATION: ""}
"""What a hidden round is a sum of."""
_STATE = "strategy:"
"""Before the names of a strategy's own arrays in the journal."""


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
    privacy: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By site, what its updates had cost by then (`site_info.Privacy`); empty without differential privacy."""
    clipped: bool = False
    """Whether the mean of the updates went further than the bounds of a step or of the run."""
    ended: str = ""
    """Why no more rounds followed, where a site left; empty otherwise."""
    kept: bool | None = None
    """Whether the model is this round's; None where that is the last one's anyway."""


@dataclass
class _Validation:
    """The validation sums that come with each training answer, always of the model that was sent."""

    session: Session

    def __post_init__(self) -> None:
        self.analysis = registered(self.session.campaign)[VALIDATION]
        # It takes one exchange (`Evaluation.baseline` is false): every answer holds all there is.
        self.iterate: Iterate = self.analysis.first()

    def read(
        self, answers: dict[str, Answer], *, round_number: int, summed: FloatArray | None = None
    ) -> tuple[Result | None, dict[str, Result]]:
        """What they come to: over all sites, and by site where no sums are hidden; `summed` (v,) is a hidden sum."""
        layout = self.analysis.layout(self.iterate)
        if summed is not None:
            outcome = self.analysis.combine(Statistic(layout, summed, None), self.iterate)
            return (outcome.result if isinstance(outcome, Done) else None), {}
        if self.session.campaign.privacy.secure_aggregation:
            return None, {}
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


def save_model(path: Path, weights: Weights, *, about: Mapping[str, Any]) -> None:
    """Write the model atomically, so that a run cut off keeps its last finished round."""
    # One metadata entry: the format keeps several in no fixed order, and the same model must be the same bytes.
    content = safetensors.numpy.save(weights, metadata={"fedage": json.dumps(about, sort_keys=True)})
    write_atomically(path, content, mode=0o644)


def train(
    session: Session,
    made: RunModel,
    *,
    training: Training,
    strategy: Strategy,
    roles: ArrayRoles,
    path: Path,
    records: list[RoundRecord],
    described: dict[str, Answer],
    about: Mapping[str, Any],
    fold: int = 0,
    rounds_before: int = 0,
    path_before: float = 0.0,
) -> tuple[Weights, float]:
    """All rounds with the sites `described`, which late ones join; a round joins `records` as it ends, and is kept.

    Returns the model and how far the run has come; `rounds_before` and `path_before` are those of phases before,
    `about` is what the model's file says of it.

    Raises
    ------
    CampaignFailed
        If a round has fewer answers than the quorum; the model of the last finished round is on disk.
    """
    campaign = session.campaign
    validation = _Validation(session)
    first = len(records)
    limits, bounds = step_limits(campaign), update_limits(campaign)
    if limits is None or bounds is None:
        raise CampaignFailed("the campaign file trains nothing in rounds")
    weights, path_norm = made.weights, path_before
    resting, best = Resting(), BestRound(training)
    late = LateSites(session, described)
    knowing: set[str] = set()
    """Sites that have answered a model of this run: to others go the sums of a table's first model as well."""
    for number in range(rounds_before + 1, rounds_before + training.rounds + 1):
        if best.is_over():
            session.events.emit("stopped-early", after=number - 1, best=best.number, mae_years=best.mae_years)
            break
        started = time.monotonic()
        step = step_of(TRAIN, round_number=number, fold=fold)
        if fold == 0:  # later ones' predictions could not be of every fold
            late.take_in(round_number=number, next_step=step)
        all_know = knowing.issuperset(session.training_sites)
        accepted = Accepted(session, strategy, weights, number, described=described, roles=roles, limits=bounds)
        hides = campaign.privacy.secure_aggregation
        keys = reserve(session, TRAIN, blocks=BLOCKS, sites=session.training_sites) if hides else None
        is_there = keys is None or session.steps.is_next(step)
        before = session.replayed(step, sites=session.training_sites) if is_there else None
        if before is not None:
            answers = before.answers
        else:
            payload: dict[str, Any] = {
                **RunModel(weights, Basis() if all_know else made.basis).payload,
                **join_iterates({VALIDATION: validation.iterate}),
            }
            fit = tuple(session.training_sites)
            if keys is None:  # who takes part in a masked sum has been agreed
                fit = resting.asked(fit, number=number, quorum=campaign.quorum)
            rate = learning_rate(training, round_number=number - rounds_before)
            start = RoundStart(number=number, weights=weights, sites=fit, learning_rate=rate)
            sending = strategy.configure(start)
            payload |= sending.payload
            if keys is not None:
                layout = validation.analysis.layout(validation.iterate)
                try:
                    answers = accepted.take_sum(payload, keys, layout=layout, fold=fold, training=training)
                except NotAddedUp as failed:
                    if not (training.finish_early and len(records) > first):
                        raise
                    session.steps.sets.unopened = None  # the run goes on from here, also when it is resumed
                    records[-1].ended = str(failed)
                    session.events.emit("ended-without", after=number - 1, why=str(failed))
                    break
            else:
                answers = session.ask(
                    TRAIN,
                    payload,
                    round_number=number,
                    fold=fold,
                    sites=sending.sites,
                    on_arrival=accepted.take,
                    enough=Enough(accepted.patients, campaign.quorum, training.wait_after_quorum_s).reached,
                )
        knowing = set(answers)
        validated = (accepted.sums if before is None else before.sums).get(VALIDATION)
        overall, by_site = validation.read(answers, round_number=number, summed=validated)
        if len(records) > first:
            records[-1].validation, records[-1].validation_by_site = overall, by_site
            _tell(session, records[-1])
        best.see(number - 1, weights, overall["mae_years"] if overall else None)
        if before is not None:
            session.steps.know(before.known)
            if before.model:
                own = {name: array for name, array in before.model.items() if not BestRound.is_its(name)}
                weights = {name: array for name, array in own.items() if not name.startswith(_STATE)}
                best.restore(before.model)
                strategy.restore(
                    {n.removeprefix(_STATE): array for n, array in before.model.items() if n.startswith(_STATE)}
                )
            record = RoundRecord(fold=fold, **before.more["record"])
            path_norm = before.more["path"]
            resting = Resting.of(before.more.get("resting", {}))
            if keys is not None:
                keys[0].used += before.more["retries"]
        else:
            accepted.tell_who_decides()
            session.require_quorum(accepted.patients, step=f"round {number}", kind=TRAIN)
            made_of_them = strategy.finish()
            weights, norm, clipped = limited_step(weights, made_of_them.weights, roles, limits=limits, path=path_norm)
            path_norm += norm
            if clipped:
                session.events.emit("step-clipped", number=number, fold=fold, norm=limits.step_norm)
            loss = accepted.loss
            if keys is None:
                loss = _mean_loss({site: (answers[site].info.loss, n) for site, n in accepted.patients.items()})
            seconds, sites = time.monotonic() - started, sorted(accepted.patients)
            record = RoundRecord(number, seconds, sites, loss, made_of_them.norm, fold=fold, clipped=clipped)
            record.privacy = {site: told.model_dump() for site, told in accepted.privacy.items()}
            # One that is away costs nobody time, and is asked at once when it is back.
            online = set(session.grid.get_node_ids()) if keys is None else set[int]()
            tried = [site for site in sending.sites if session.nodes[site] in online]
            for site in resting.after(number, asked=tried, accepted=accepted.patients):
                accepted.note(site, f"{FAILURES} rounds without a usable update; it sits out the next {REST}")
            told = {
                "number": number,
                "seconds": seconds,
                "sites": sites,
                "train_loss": loss,
                "update_norm": made_of_them.norm,
                "clipped": clipped,
                "privacy": record.privacy,
            }
            series = f"fold {fold} from round {rounds_before + 1}"
            model: dict[str, NDArray[Any]] = {
                **weights,
                **{_STATE + name: array for name, array in strategy.state().items()},
                **best.arrays(),
            }
            session.steps.keep(
                step,
                answers,
                more={
                    "record": told,
                    "path": path_norm,
                    "resting": resting.to_json(),
                    "retries": accepted.summed.retries,
                },
                model=model,
                series=series,
                sums=accepted.sums,
                replaces=accepted.summed.steps,
            )
        save_model(path, weights, about={**about, "round": number})
        records.append(record)
        session.events.emit(
            "round",
            number=number,
            of=rounds_before + training.rounds,
            fold=min(fold, campaign.validation.folds or 0),
            folds=campaign.models,
            seconds=round(record.seconds, 2),
            sites=record.sites,
            train_loss=record.train_loss,
        )
    kept = best.model(weights)
    if kept is not weights:
        session.events.emit("kept-best", round=best.number, mae_years=best.mae_years)
        save_model(path, kept, about={**about, "round": best.number})
        for record in records[first:]:
            record.kept = record.number == best.number
    return kept, path_norm


def _mean_loss(losses: Mapping[str, tuple[float | None, int]]) -> float | None:
    """The mean over patients of the losses that sites told, by site with its patients; None if none told any."""
    known = [(loss, n) for loss, n in losses.values() if loss is not None]
    return sum(loss * n for loss, n in known) / sum(n for _, n in known) if known else None


def _tell(session: Session, record: RoundRecord) -> None:
    if record.validation is not None:
        session.events.emit("validation", round=record.number, mae_years=record.validation["mae_years"])
