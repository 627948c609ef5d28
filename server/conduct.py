"""A campaign from the offer to the report: describe, train, predict, correct, analyse, record.

`results.json` and `report.html` are written at the end whatever happened, so that nothing computed is lost.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedage.common.analyses.base import Analysis
from fedage.common.analyses.plan import BIAS, VALIDATION, left_out, stages
from fedage.common.campaign import Campaign
from fedage.common.protocol import ANALYSE, EVALUATE, join_model
from fedage.common.statistic import FloatArray
from fedage.server.analyses import Findings, run_stage
from fedage.server.assemble import assemble
from fedage.server.events import EventLog, read_events
from fedage.server.heads import Heads
from fedage.server.model import make_model
from fedage.server.network.grid import PromptGrid
from fedage.server.report import render_report
from fedage.server.results import write_results
from fedage.server.rounds import RoundRecord
from fedage.server.session import Answer, CampaignFailed, Session


@dataclass(frozen=True)
class Place:
    """Where a run happens and is recorded."""

    folder: Path
    run: str
    environment: str
    guard: bool
    sites_there: int | None = None
    """How many sites there are; None where they come and go, in a deployment."""


@dataclass
class Record:
    """Everything a run has found so far."""

    started: datetime
    descriptions: dict[str, Answer] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    findings: Findings = field(default_factory=Findings)
    preparation: dict[int, dict[str, object]] = field(default_factory=dict)
    status: str = "failed"
    reason: str = ""


def conduct(
    grid: PromptGrid,
    campaign: Campaign,
    place: Place,
    *,
    key: Ed25519PrivateKey | None,
    admitted: Mapping[int, str] | None,
    heads: Heads | None = None,
) -> None:
    """Run the campaign and write its record.

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
    events = EventLog(place.folder / "events.jsonl")
    session = Session(
        grid=grid,
        campaign=campaign,
        run=place.run,
        key=key,
        events=events,
        admitted=admitted,
        heads=heads,
        sites_there=place.sites_there,
    )
    record = Record(started=datetime.now(UTC))
    events.emit("started", campaign=campaign.campaign.name, digest=campaign.digest, run=place.run)
    try:
        _phases(session, record, folder=place.folder)
        record.status = "finished"
    except CampaignFailed as failure:
        record.reason = str(failure)
        raise
    except BaseException as error:
        record.status = "stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        record.reason = f"stopped by {type(error).__name__}"
        raise
    finally:
        try:
            _write(session, record, place)
        finally:
            events.emit("finished", status=record.status, reason=record.reason)
            events.close()


def _write(session: Session, record: Record, place: Place) -> None:
    results = assemble(session, record, place)
    write_results(place.folder / "results.json", results)
    report = render_report(results, events=read_events(place.folder / "events.jsonl"))
    (place.folder / "report.html").write_text(report, encoding="utf-8")


def _phases(session: Session, record: Record, *, folder: Path) -> None:
    campaign, findings = session.campaign, record.findings
    record.descriptions = session.describe()
    for site, answer in sorted(record.descriptions.items()):
        session.events.emit(
            "site",
            site=site,
            patients=answer.info.patients,
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
    run_stage(
        session,
        after_correction,
        kind=ANALYSE,
        findings=findings,
        extra=_bias_line(campaign, findings),
        following_kind=ANALYSE,
        fold=all_folds(campaign),
    )
    session.events.emit("analysed", seconds=round(time.monotonic() - started, 2))


def all_folds(campaign: Campaign) -> int:
    """The number that a request gives as its fold when every fold has its model: one past the last."""
    return campaign.validation.folds or 0


def _predict(session: Session, record: Record, analyses: Sequence[Analysis], *, folder: Path) -> None:
    """Make the model, or one model a fold, have the sites predict, and run the analyses of the predictions."""
    campaign, findings = session.campaign, record.findings
    if campaign.validation.folds is None:
        weights = make_model(session, record, folder=folder, fold=0)
        run_stage(
            session,
            analyses,
            kind=EVALUATE,
            payload=join_model(weights),
            findings=findings,
            following_kind=ANALYSE,
        )
        _last_validation(session, record)
        return
    for fold in range(campaign.validation.folds):
        weights = make_model(session, record, folder=folder, fold=fold)
        answers = session.ask(EVALUATE, join_model(weights), fold=fold)
        session.require_quorum(answers, step=f"predictions of fold {fold + 1}", kind=EVALUATE)
        session.events.emit("fold", number=fold + 1, of=campaign.validation.folds, sites=sorted(answers))
    run_stage(session, analyses, kind=ANALYSE, findings=findings, following_kind=ANALYSE, fold=all_folds(campaign))


def _last_validation(session: Session, record: Record) -> None:
    """The validation figures of the last round's model come with the evaluation, not with another training."""
    if record.rounds and (overall := record.findings.results.get(VALIDATION)):
        last = record.rounds[-1]
        last.validation = overall
        last.validation_by_site = record.findings.by_site.get(VALIDATION, {})
        session.events.emit("validation", round=last.number, mae_years=overall["mae_years"])


def _bias_line(campaign: Campaign, findings: Findings) -> dict[str, dict[str, FloatArray]]:
    """What the sites need to correct with a pooled line; with one line a site they need nothing from here."""
    line = findings.results.get(BIAS)
    if campaign.bias.scope == "site" or line is None:
        return {}
    return {"bias-line": {"line": np.array([line["slope"], line["intercept_years"]])}}
