"""From what a run found to `results.json`: no computation on patients here, only putting things where they belong."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from fedage.common.analyses import plan
from fedage.common.analyses.registry import of_campaign
from fedage.common.campaign import Campaign
from fedage.common.estimators.private_training import ASSUMPTIONS, SITE_ASSUMPTIONS
from fedage.common.estimators.table import FEATURE
from fedage.common.protocol.heads import fingerprint
from fedage.common.protocol.messages import ANALYSE, TRAIN
from fedage.common.record.parts import WHOLE_SITE
from fedage.common.version import __version__
from fedage.server.campaign.analyses import AnalysisOutcomes
from fedage.server.campaign.run_so_far import Place, Record
from fedage.server.campaign.site_privacy import add_site_costs, sums_cost
from fedage.server.record import results as record_of
from fedage.server.record.results import Results, StepResult
from fedage.server.report.withheld_columns import WHY_LEFT_OUT
from fedage.server.sites.session import Answer, Session


def assemble(session: Session, record: Record, place: Place) -> Results:
    """The record of a run, complete or cut off."""
    campaign, findings = session.campaign, record.findings
    add_site_costs(campaign, record.rounds)
    results = Results(
        fedage_version=__version__,
        flwr_version=version("flwr"),
        campaign=record_of.CampaignInfo(
            name=campaign.campaign.name,
            purpose=campaign.campaign.purpose,
            digest=campaign.digest,
            seed=campaign.campaign.seed,
            estimator=campaign.estimator.name if campaign.estimator else "",
            minimum_count=campaign.privacy.minimum_count,
            folds=campaign.validation.folds,
            final_model=campaign.validation.final_model,
            bundle=campaign.bundle or "",
            train_on=campaign.cohort.train_on,
            rounds=campaign.training.rounds if campaign.training else None,
        ),
        run=record_of.RunInfo(
            id=place.run,
            started_utc=record.started.isoformat(timespec="seconds"),
            finished_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            status=record.status,  # type: ignore[arg-type]
            reason=record.reason,
            environment=place.environment,  # type: ignore[arg-type]
            guard=place.guard,
        ),
        phantoms=plan.on_phantoms(campaign),
        sites=tuple(_sites(session, record)),
        preparation=tuple(
            _preparation(_number(campaign, fold), prepared) for fold, prepared in sorted(record.preparation.items())
        ),
        rounds=tuple(
            record_of.Round(
                number=done.number,
                fold=_number(campaign, done.fold),
                seconds=done.seconds,
                train_loss=done.train_loss,
                validation_mae_years=done.validation["mae_years"] if done.validation else None,
                validation_mae_years_by_site={
                    site: result["mae_years"] for site, result in sorted(done.validation_by_site.items())
                },
                sites=tuple(done.sites),
                kept=done.kept,
                update_norm=done.update_norm,
                epsilon_by_site={site: spent["epsilon"] for site, spent in sorted(done.privacy.items())},
            )
            for done in record.rounds
        ),
        analyses=_analyses(campaign, findings),
        external=_analyses(campaign, record.external) if validates_beside(session) else {},
        notes=(*_notes(campaign, place, findings), *_of_bundle(record), *_clipped(record), *_ended(record)),
    )
    return _concluded(campaign, results)


def validates_beside(session: Session) -> bool:
    """Whether some sites only validate what others make."""
    return session.campaign.bundle is None and bool(session.validating_sites)


def _number(campaign: Campaign, fold: int) -> int | None:
    """A fold from 1, one more than there are for the model on everybody; None without folds."""
    folds = campaign.validation.folds
    return None if folds is None else min(fold, folds) + 1


def _of_bundle(record: Record) -> list[str]:
    """Whose model was validated, and how it did where it was made."""
    if record.bundle is None:
        return []
    description = record.bundle.description
    origin, errors = description.origin, description.errors
    sites = ", ".join(sorted(description.trained_on.sites))
    there = (
        f" There predicted ages were off by {errors.mae_years:.2f} years on average, on {errors.n} patients."
        if errors is not None and errors.mae_years is not None
        else ""
    )
    whose = f"sites {sites or 'not named'}), signed by the key {fingerprint(record.bundle.key)[:16]}…"
    return [
        f"Nothing was trained: the model is that of campaign {origin.campaign}, run {origin.run} "
        f"({origin.environment}; {whose}.{there}"
    ]


def _concluded(campaign: Campaign, results: Results) -> Results:
    """The record with the steps that follow from others."""
    for definition in of_campaign(campaign):
        concluded = {
            step: results.analyses.get(step, StepResult(analysis=definition.name)).model_copy(
                update={"result": result, "not_computed": ""}
            )
            for step, result in definition.conclude(campaign, results).items()
        }
        if concluded:
            results = results.model_copy(update={"analyses": {**results.analyses, **concluded}})
    return results


def _analyses(campaign: Campaign, findings: AnalysisOutcomes) -> dict[str, StepResult]:
    """What came of each step, in the order of the plan."""
    about = plan.about_steps(campaign)
    return {
        step: StepResult.model_validate(
            {
                "analysis": definition.name,
                "about": about[step],
                "result": {**findings.results[step], **about[step]} if step in findings.results else None,
                "by_site": {site: {**own, **about[step]} for site, own in findings.by_site.get(step, {}).items()},
                "costs": findings.costs.get(step, ()),
                "sites": findings.contributors.get(step, ()),
                "not_computed": ""
                if step in findings.results
                else findings.not_computed.get(step, "the run ended before"),
            }
        )
        for step, definition in plan.analysis_of_steps(campaign).items()
    }


def _preparation(fold: int | None, prepared: Mapping[str, Any]) -> record_of.Preparation:
    """Features by the names that the tables give them."""
    names = {
        key: tuple(name.removeprefix(FEATURE) for name in prepared.get(key, ()))
        for key in ("unused", "withheld_columns")
    }
    return record_of.Preparation.model_validate({**prepared, **names, "fold": fold})


def _sites(session: Session, record: Record) -> list[record_of.SiteRecord]:
    names = {*session.campaign.campaign.sites, *record.descriptions, *session.troubles, *session.refused}
    return [_site(name, session, record) for name in sorted(names)]


def _site(name: str, session: Session, record: Record) -> record_of.SiteRecord:
    answer = record.descriptions.get(name)
    withheld = tuple(
        record_of.Withheld(step=step, reason=reason)
        for outcomes in (record.findings, record.external)
        for step, reason in sorted(outcomes.withheld.get(name, {}).items())
    )
    troubles = tuple(session.troubles.get(name, ()))
    if answer is None:
        refused = session.refused.get(name, "")
        return record_of.SiteRecord(
            name=name,
            status="refused" if refused else "absent",
            reason=refused or (troubles[-1] if troubles else "never answered"),
            troubles=troubles,
            withheld=withheld,
            audit_head=_audit_head(name, session),
        )
    dropped = _dropped_out(name, session, record)
    return record_of.SiteRecord(
        name=name,
        status="took part" if dropped is None else "dropped out",
        dropped_out_in_round=dropped,
        reason=troubles[-1] if dropped is not None and troubles else "",
        patients=answer.info.patients,
        hidden=session.campaign.privacy.secure_aggregation,
        minimum_count=answer.info.minimum_count,
        patients_by_part=answer.info.parts,
        held_out_in_folds=_held_out_in_folds(session.campaign, answer),
        excluded=answer.info.excluded,
        rejected_files=answer.info.rejected_files,
        rejected_samples=answer.info.rejected_samples,
        device=answer.info.device,
        withheld=withheld,
        troubles=troubles,
        role=session.attendance.role(name),
        privacy=_privacy(name, session.campaign, record),
        audit_head=_audit_head(name, session),
    )


def _privacy(name: str, campaign: Campaign, record: Record) -> record_of.SitePrivacy | None:
    """What a site's last update said of its privacy."""
    spent = next((done.privacy[name] for done in reversed(record.rounds) if name in done.privacy), None)
    if name in record.noised_at:
        spent = sums_cost(campaign, models=record.noised_at.count(name))
    for found in (record.findings, record.external):
        if name in found.privacy:  # after all updates: it is the sum of both
            spent = {**(spent or found.privacy[name]), "epsilon": found.privacy[name]["epsilon"]}
    if spent is None:
        return None
    told = record_of.SitePrivacy(**spent, clip_norm=campaign.privacy.clip_norm)
    return told.model_copy(update={"adjacency": WHOLE_SITE}) if campaign.privacy.mode == "client" else told


def _held_out_in_folds(campaign: Campaign, answer: Answer) -> int | None:
    """In how many folds a site holds patients out; None if it does not tell."""
    parts = answer.info.parts
    if campaign.validation.folds is None or campaign.estimator is None or not parts or None in parts.values():
        return None
    return sum(count != 0 for count in parts.values())


def _audit_head(name: str, session: Session) -> record_of.AuditHead | None:
    head = session.last_heads.get(name)
    if head is None:
        return None
    return record_of.AuditHead(sequence=head.sequence, hash=head.hash, time_utc=head.time_utc)


def _dropped_out(name: str, session: Session, record: Record) -> int | None:
    """The round after a site's last update if it left before the end, 0 if in the analyses, None if it stayed.

    A site that its policy keeps out of training, or out of the analyses, has not dropped out of them.

    With folds a site may miss the end of one and come back for the next, and what it did answer counts; so only one
    that is gone at the end has dropped out, and the number is a round of the last fold.
    """
    rounds = record.rounds if session.attendance.answers(name, TRAIN) else []
    analysed = bool(record.findings.contributors or record.external.contributors) and session.attendance.answers(
        name, ANALYSE
    )
    if session.campaign.validation.folds is not None:
        if name in session.answered_last:
            return None
        last_fold = [done for done in rounds if done.fold == rounds[-1].fold]
        last = max((done.number for done in last_fold if name in done.sites), default=0)
        if last_fold and name not in last_fold[-1].sites:
            return last + 1
        return 0 if analysed else None
    if rounds and name not in rounds[-1].sites:
        last = max((done.number for done in rounds if name in done.sites), default=0)
        return last + 1
    return 0 if analysed and name not in session.answered_last else None


def _clipped(record: Record) -> list[str]:
    """That a bound of the file changed the model, if it did."""
    clipped = sum(done.clipped for done in record.rounds)
    if not clipped:
        return []
    return [
        f"In {clipped} of {len(record.rounds)} rounds the model's step was clipped to training.max_step_norm, or to "
        "what was left of training.max_path_norm: the model is not what it would have been without these bounds."
    ]


def _ended(record: Record) -> list[str]:
    """That a training ended before its time, as a site left whose update would have been seen."""
    return [f"Training ended after round {done.number} ({done.ended})." for done in record.rounds if done.ended]


def rules_off(campaign: Campaign, place: Place) -> list[str]:
    """Which rules of disclosure control the file asks to be off; a deployed site's policy may keep them on."""
    if not place.guard:
        return []
    off = []
    if campaign.privacy.patients_per_column == 0:
        off.append("a fewest number of patients for each column of sums of products (privacy.patients_per_column = 0)")
    if campaign.privacy.largest_share == 1:
        off.append("a largest share of one patient in a sum of products (privacy.largest_share = 1)")
    if not off:
        return []
    kept = "" if place.environment == "simulation" else " A site's own policy may ask for it all the same."
    return [f"The campaign file does without {' and without '.join(off)}.{kept}"]


HIDDEN = (
    "Each site's sums were hidden from the coordinator (secure aggregation), which saw only those over all sites that "
    "contributed. So results by site, and how many patients each site brought, are not told"
)
"""What stands in the record in the place of results by site."""


def private_notes(campaign: Campaign) -> list[str]:
    """What differential privacy of the campaign covers, and what not."""
    if campaign.privacy.mode == "client":
        return [
            "The model was trained with differential privacy for each whole site, towards everybody but the "
            f"coordinator: its weights are covered by the (ε, δ) told for each site, where {SITE_ASSUMPTIONS}.",
            _OUTSIDE,
        ]
    if campaign.privacy.mode != "sample":
        return []
    covered = "its weights are covered by"
    if campaign.noises_validation:
        covered = "its weights, its errors on validation patients and the age-bias lines told are covered by"
    return [
        f"The model was trained with differential privacy for each patient of each site: {covered} the (ε, δ) told for "
        f"each site, where {ASSUMPTIONS}.",
        _OUTSIDE_BUT_VALIDATION if campaign.noises_validation else _OUTSIDE,
    ]


_OUTSIDE = (
    "Outside this guarantee: how far predicted ages are off, the age-bias line and all other analyses, whose sums "
    "have no noise and are protected by the sites' disclosure control only; any choice made by looking at them."
)
_OUTSIDE_BUT_VALIDATION = (
    "Outside this guarantee: how far predicted ages of test patients are off and all other analyses, whose sums have "
    "no noise and are protected by the sites' disclosure control only; ages corrected at a site by its own line; any "
    "choice made by looking at these. With folds the test patients are all patients, those of the validation too."
)


def _notes(campaign: Campaign, place: Place, findings: AnalysisOutcomes) -> list[str]:
    notes = ["The analyses are exact sums over the sites."]
    if campaign.training is not None:
        training = "Federated averaging with local epochs is not pooled training"
        notes = [f"{training}; the analyses are sums, exact unless noted."]
    notes += private_notes(campaign)
    if campaign.privacy.secure_aggregation:
        asked = campaign.privacy.results_by_site
        notes.append(f"{HIDDEN}{', but by sites whose policy has tells_own_results' if asked else ''}.")
    if not place.guard:
        notes.append("The sites' disclosure control was switched off: these figures may single out patients.")
    notes += rules_off(campaign, place)
    if plan.on_phantoms(campaign):
        notes.append("Images are phantoms rendered by FedAge, and the follow-up was simulated.")
    analyses = plan.analysis_of_steps(campaign)
    for step, result in sorted(findings.results.items()):
        if step in analyses:
            notes += [f"{step}: {note}" for note in analyses[step].notes(result)]
    for step, result in sorted(findings.results.items()):
        if left_out := result.get("withheld_columns"):
            notes.append(f"{step}: computed without {', '.join(left_out)}. {WHY_LEFT_OUT}")
    notes += [f"{step}: {reason}" for step, reason in sorted(findings.not_computed.items())]
    return notes
