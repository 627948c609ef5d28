"""A campaign from the offer to the report: describe, train, predict, correct, analyse, record.

`results.json` and `report.html` are written at the end whatever happened, so that nothing computed is lost.
"""

from __future__ import annotations

import errno
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message, RecordDict

from fedage.common.analyses.base import Analysis
from fedage.common.analyses.bias.bias_line import BIAS
from fedage.common.analyses.evaluation.metrics import VALIDATION
from fedage.common.analyses.plan import left_out, stages
from fedage.common.bundle.container import BundleRefused
from fedage.common.campaign import Campaign
from fedage.common.protocol.messages import ANALYSE, EVALUATE
from fedage.common.statistics.statistic import FloatArray
from fedage.server.campaign.analyses import AnalysisOutcomes, run_stage
from fedage.server.campaign.assemble import assemble
from fedage.server.campaign.bundles import bundle_of_run
from fedage.server.campaign.model import make_model
from fedage.server.campaign.run_model import RunModel
from fedage.server.campaign.run_so_far import Place, Record
from fedage.server.record.events import EventLog, read_events
from fedage.server.record.heads import Heads
from fedage.server.record.journal import Journal
from fedage.server.record.results import Results, write_results
from fedage.server.record.run_folder import RunFolder
from fedage.server.report import render_report
from fedage.server.sites.secure_sums import give_up_last
from fedage.server.sites.session import Answer, CampaignFailed, Session
from fedage.server.superlink.grid import PollingGrid, Stopped

_SAVED_AFTER = frozenset(
    {"started", "site", "site-left-out", "round", "validation", "fold", "recorded", "analysed", "site-trouble"}
)
"""Events after which the record so far is written down: a process that is killed cannot write it any more."""
_CHEAP_S, _SAVING_SHARE = 0.1, 0.1
_CUT_OFF = "the process of the run ended before its record was written"


@dataclass
class _Saved:
    """How often the record so far is written: always, unless it has grown so long that the run would wait for it.

    What it costs is the less of the last two times: the first one loads libraries, and a machine can be busy.
    """

    at: float = 0.0
    cost_s: float = 0.0
    last_s: float = 0.0

    def is_due(self) -> bool:
        return self.cost_s < _CHEAP_S or time.monotonic() - self.at > self.cost_s / _SAVING_SHARE

    def took(self, began: float) -> None:
        self.at = time.monotonic()
        self.cost_s = min(self.last_s, self.at - began)
        self.last_s = self.at - began


def conduct(
    grid: PollingGrid,
    campaign: Campaign,
    place: Place,
    *,
    key: Ed25519PrivateKey | None,
    admitted: Mapping[int, str] | None,
    heads: Heads | None = None,
) -> None:
    """Run the campaign and write its record. A run that was here before is gone on with (see `Journal`).

    Parameters
    ----------
    grid
        The sites.
    campaign
        What to do.
    place
        Where to record it.
    key
        Signs requests; None in simulation only.
    admitted
        The name each node was admitted under; None in simulation only.
    heads
        Keeps the heads of the sites' audit logs; None in simulation only, where sites have none.

    Raises
    ------
    CampaignFailed
        After the record is written, so that Flower shows the run as failed too.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    (place.folder / "campaign.toml").write_text(campaign.text, encoding="utf-8")
    record = Record(started=datetime.now(UTC))

    saved = _Saved()

    def save(event: str) -> None:
        if event in _SAVED_AFTER and saved.is_due():
            began = time.monotonic()
            write_results(RunFolder(place.folder).progress, assemble(session, record, place), durable=False)
            saved.took(began)

    journal = None if admitted is None else Journal(RunFolder(place.folder).journal)
    silent = journal.is_replaying if journal is not None else _never
    if before := read_events(place.folder / "events.jsonl"):
        record.started = datetime.fromisoformat(before[0]["time"])
    events = EventLog(place.folder / "events.jsonl", after=save, silent=silent)
    session = Session(
        grid=grid,
        campaign=campaign,
        run=place.run,
        key=key,
        events=events,
        admitted=admitted,
        heads=heads,
        sites_there=place.sites_there,
        journal=journal,
    )
    record.reason = _CUT_OFF
    events.emit("started", campaign=campaign.campaign.name, digest=campaign.digest, run=place.run)
    try:
        _phases(session, record, folder=place.folder)
        record.status, record.reason = "finished", ""
    except CampaignFailed as failure:
        record.reason = str(failure)
        give_up_last(session)
        raise
    except BaseException as error:
        record.status = "stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        record.reason = _why(error)
        raise
    finally:
        if journal is not None:
            journal.caught_up()
        try:
            _write(session, record, place)
            if journal is not None and record.status == "finished":
                journal.remove()
        finally:
            events.emit("finished", status=record.status, reason=record.reason)
            events.close()


def _never() -> bool:
    return False


def nothing_yet(campaign: Campaign, place: Place) -> Results:
    """The record of a run that found nothing: of one that never began, or ended in its first moment."""
    with tempfile.TemporaryDirectory(prefix="fedage-") as scratch:
        events = EventLog(Path(scratch) / "events.jsonl")
        try:
            grid = PollingGrid(_NoGrid())
            session = Session(grid=grid, campaign=campaign, run=place.run, key=None, events=events, admitted=None)
            return assemble(session, Record(started=datetime.now(UTC)), place)
        finally:
            events.close()


class _NoGrid:
    """A Grid without nodes."""

    def get_node_ids(self) -> list[int]:
        return []

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        return ["" for _message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        del message_ids
        return []


def _why(error: BaseException) -> str:
    """Why a run ended by an exception that is none of a campaign's own."""
    if isinstance(error, Stopped):
        return str(error)
    if isinstance(error, SystemExit):
        return "the process of the run was told to end: the coordinator was stopped, or its executor died"
    if type(error).__name__ == "RunNotRunningException":
        return "the run was stopped in the SuperLink, or the SuperLink lost it"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk of the coordinator is full; make room and start another run"
    return f"stopped by {type(error).__name__}"


def _write(session: Session, record: Record, place: Place) -> None:
    results = assemble(session, record, place)
    write_results(place.folder / "results.json", results)
    report = render_report(results, events=read_events(place.folder / "events.jsonl"))
    (place.folder / "report.html").write_text(report, encoding="utf-8")
    run = RunFolder(place.folder)
    run.progress.unlink(missing_ok=True)
    if run.state.is_dir() and not any(run.state.iterdir()):
        run.state.rmdir()  # a simulation's


def _phases(session: Session, record: Record, *, folder: Path) -> None:
    campaign, findings = session.campaign, record.findings
    record.descriptions = session.describe()
    for site, answer in sorted(record.descriptions.items()):
        session.events.emit(
            "site",
            site=site,
            patients=answer.info.patients,
            hidden=campaign.privacy.secure_aggregation,
            device=answer.info.device,
            role=session.attendance.role(site),
        )
    findings.not_computed.update(left_out(campaign))
    after_prediction, after_correction = stages(campaign)
    started = time.monotonic()
    if campaign.estimator is not None:
        _predict(session, record, after_prediction, folder=folder)
    else:
        run_stage(session, after_prediction, kind=ANALYSE, findings=findings, following_kind=ANALYSE)
    line = _bias_line(campaign, record)
    for judged in _judged(session, record):
        judged.run(session, after_correction, kind=ANALYSE, extra=line, fold=all_folds(campaign))
    session.events.emit("analysed", seconds=round(time.monotonic() - started, 2))


def all_folds(campaign: Campaign) -> int:
    """The number that a request gives as its fold when every fold has its model: one past the last."""
    return campaign.validation.folds or 0


@dataclass(frozen=True)
class _Judged:
    """Sites whose sums make one result: all, or where some train and others only validate, each of the two."""

    sites: list[str] | None
    findings: AnalysisOutcomes
    quorum: bool = True

    def run(self, session: Session, analyses: Sequence[Analysis], *, kind: str, **options: Any) -> None:
        run_stage(
            session,
            analyses,
            kind=kind,
            findings=self.findings,
            following_kind=ANALYSE,
            sites=self.sites,
            quorum=self.quorum,
            **options,
        )


def _judged(session: Session, record: Record) -> list[_Judged]:
    validating = session.validating_sites
    if not validating or session.campaign.bundle is not None:
        return [_Judged(None, record.findings)]
    others = sorted(set(session.nodes) - set(validating))
    return [_Judged(others, record.findings), _Judged(validating, record.external, quorum=False)]


def _predict(session: Session, record: Record, analyses: Sequence[Analysis], *, folder: Path) -> None:
    """Make the model, or one model a fold, have the sites predict, and run the analyses of the predictions."""
    campaign, judged = session.campaign, _judged(session, record)
    if campaign.bundle is not None:
        _predict_by_bundle(session, record, folder=folder)
    elif campaign.validation.folds is None:
        made = make_model(session, record, folder=folder, fold=0)
        for each in judged:
            each.run(session, analyses, kind=EVALUATE, payload=made.payload)
        _last_validation(session, record)
        return
    else:
        _predict_by_folds(session, record, folds=campaign.validation.folds, folder=folder)
    for each in judged:
        each.run(session, analyses, kind=ANALYSE, fold=all_folds(campaign))


def _predict_by_bundle(session: Session, record: Record, *, folder: Path) -> None:
    assert session.campaign.final_fold is not None
    try:
        bundle = bundle_of_run(session.campaign, folder)
    except BundleRefused as refused:
        raise CampaignFailed(str(refused)) from None
    assert bundle is not None
    content, record.bundle = bundle
    answers = session.ask(EVALUATE, RunModel({}, bundle=content).payload, fold=session.campaign.final_fold)
    session.require_quorum(answers, step="predictions by the bundle", kind=EVALUATE)
    session.events.emit("bundle", digest=record.bundle.digest, sites=sorted(answers))


def _predict_by_folds(session: Session, record: Record, *, folds: int, folder: Path) -> None:
    """A model a fold, judged by who was held out of it; the one on everybody is judged where nobody was trained on."""
    campaign, validating = session.campaign, session.validating_sites
    judging_folds = None if campaign.final_fold is None else sorted(set(session.nodes) - set(validating))
    for fold in range(folds):
        made = make_model(session, record, folder=folder, fold=fold)
        answers = session.ask(EVALUATE, made.payload, fold=fold, sites=judging_folds)
        session.require_quorum(answers, step=f"predictions of fold {fold + 1}", kind=EVALUATE)
        judging = sorted(site for site in answers if _holds_out(record.descriptions.get(site), fold))
        session.events.emit("fold", number=fold + 1, of=folds, sites=judging)
    if campaign.final_fold is not None:
        made = make_model(session, record, folder=folder, fold=campaign.final_fold)
        if validating:
            session.ask(EVALUATE, made.payload, fold=campaign.final_fold, sites=validating, needed=0)
        session.events.emit("final-model", sites=validating)


def _holds_out(described: Answer | None, fold: int) -> bool:
    """Whether a site holds patients out in a fold: a small one does not in all of them."""
    return described is None or described.info.parts.get(f"fold {fold + 1}") != 0


def _last_validation(session: Session, record: Record) -> None:
    """The validation figures of the last round's model come with the evaluation, not with another training."""
    if record.rounds and record.rounds[-1].kept is None and (overall := record.findings.results.get(VALIDATION)):
        last = record.rounds[-1]
        last.validation = overall
        last.validation_by_site = record.findings.by_site.get(VALIDATION, {})
        session.events.emit("validation", round=last.number, mae_years=overall["mae_years"])


def _bias_line(campaign: Campaign, record: Record) -> dict[str, dict[str, FloatArray]]:
    """What the sites need to correct with a pooled line; with one line a site they need nothing from here.

    Of a bundle it is the bundle's, fitted where it was made; nothing of sites that only validate goes into a line.
    """
    if campaign.bias.scope == "site":
        return {}
    if record.bundle is not None:
        ready = record.bundle.description.overall_line
        return {} if ready is None else {"bias-line": {"line": np.array([ready.slope, ready.intercept_years])}}
    line = record.findings.results.get(BIAS)
    return {} if line is None else {"bias-line": {"line": np.array([line["slope"], line["intercept_years"]])}}
