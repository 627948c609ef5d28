"""Making one model together: the phases of the campaign's estimator, one after another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fedage.common.analyses.exact import NoisedAnalysis
from fedage.common.analyses.preparation.table_preparation import NAME as PREPARATION
from fedage.common.bundle.container import BundleRefused
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator, ExactPhase, RoundsPhase
from fedage.common.estimators.configure import agreed_features, configured, exact_analysis, phases_of
from fedage.common.estimators.derive import last_rounds, model_before
from fedage.common.estimators.derive import roles as roles_in_phase
from fedage.common.protocol.basis import Basis
from fedage.common.protocol.messages import ANALYSE
from fedage.deploy.machine.given_weights import load_given
from fedage.server.campaign.analyses import AnalysisOutcomes, run_stage
from fedage.server.campaign.bundles import bundle_of_run
from fedage.server.campaign.rounds import save_model, train
from fedage.server.campaign.run_model import RunModel
from fedage.server.campaign.run_so_far import Record
from fedage.server.campaign.site_privacy import site_noise
from fedage.server.campaign.strategies import Spool, make_strategy
from fedage.server.record.run_folder import RunFolder
from fedage.server.sites.session import CampaignFailed, Session


def make_model(session: Session, record: Record, *, folder: Path, fold: int) -> RunModel:
    """The model of a fold, written to `folder`.

    Raises
    ------
    CampaignFailed
        If the sites' tables do not agree, an exact phase fails, or a round loses the quorum.
    """
    campaign = session.campaign
    for_everybody = campaign.validation.folds is None or fold == campaign.final_fold
    name = "model.safetensors" if for_everybody else f"model-fold-{fold + 1}.safetensors"
    try:
        described = {site: answer.info.features for site, answer in record.descriptions.items()}
        features = agreed_features(campaign, described)
        estimator = configured(campaign, features)
        if estimator is None:
            raise CampaignFailed("the campaign has no estimator, so there is no model to make")
        phases = phases_of(estimator)
    except FedAgeError as error:
        raise CampaignFailed(str(error)) from None

    def made(phase: int) -> RunModel:
        """The model that a phase begins with, as the sites work it out too."""
        follows_rounds = phase > 0 and last_rounds(estimator, before=phase) == phase - 1
        begins_rounds = phase < len(phases) and isinstance(phases[phase], RoundsPhase)
        if basis.trained is not None and follows_rounds and not begins_rounds:
            return RunModel(dict(basis.trained), replace(basis, trained=None))
        try:
            return RunModel(model_before(campaign, features, fold=fold, phase=phase, basis=basis), basis)
        except FedAgeError as error:
            raise CampaignFailed(f"the model could not be made: {error}") from None

    # By an exported model's columns a site knows which of its own a pattern of the file meant.
    about = {"campaign_digest": campaign.digest, "fold": fold, "row": list(estimator.row_columns)}
    basis = _start(campaign, folder) or Basis(given=_given_weights(estimator, RunFolder(folder)))
    rounds_before, path = 0, 0.0
    for k, phase in enumerate(phases):
        if isinstance(phase, RoundsPhase):
            if campaign.training is None:
                raise CampaignFailed("the campaign file has no rounds, and its estimator is trained in some")
            spool = Spool(RunFolder(folder).updates)
            try:
                roles = roles_in_phase(campaign, features, phase=k)
            except FedAgeError as error:
                raise CampaignFailed(str(error)) from None
            try:
                trained, path = train(
                    session,
                    made(k),
                    training=campaign.training,
                    strategy=make_strategy(
                        campaign.training,
                        spool,
                        learnt=roles.learnt,
                        noise=site_noise(session, estimator, fold=fold, learnt=roles.learnt),
                    ),
                    roles=roles,
                    path=folder / name,
                    records=record.rounds,
                    described=record.descriptions,
                    about=about,
                    fold=fold,
                    rounds_before=rounds_before,
                    path_before=path,
                )
            finally:
                spool.clear()
            rounds_before += campaign.training.rounds
            basis = replace(basis, trained=trained)
        elif not basis.bundle:  # which has what comes before the rounds
            before = made(k) if k else RunModel({})
            basis = _with_sums(session, record, phase, before, basis, fold=fold)
    finished = made(len(phases))
    if isinstance(phases[-1], ExactPhase):  # a trained one is on disk with its round
        save_model(folder / name, finished.weights, about=about)
    return finished


def _start(campaign: Campaign, folder: Path) -> Basis | None:
    """What a run begins with by the bundle that its file names; None where it names none."""
    try:
        bundle = bundle_of_run(campaign, folder)
    except BundleRefused as refused:
        raise CampaignFailed(str(refused)) from None
    return None if bundle is None else Basis(given=bundle[1].weights, bundle=bundle[0])


def _given_weights(estimator: Estimator, place: RunFolder) -> dict[str, NDArray[Any]] | None:
    """The arrays of the file that the campaign's first model begins with; None where it names none."""
    if not estimator.given_sha256:
        return None
    try:
        return load_given(place.given, sha256=estimator.given_sha256)
    except FedAgeError as error:
        raise CampaignFailed(str(error)) from None


def _with_sums(
    session: Session, record: Record, phase: ExactPhase, before: RunModel, basis: Basis, *, fold: int
) -> Basis:
    """The basis with the sums of an exact phase."""
    try:
        analysis = exact_analysis(session.campaign, phase)
    except FedAgeError as error:
        raise CampaignFailed(str(error)) from None
    findings = AnalysisOutcomes()
    run_stage(
        session,
        [analysis],
        kind=ANALYSE,
        findings=findings,
        payload=before.payload,
        following_kind=ANALYSE,
        fold=fold,
        # What goes into the model comes from sites that let their patients train one, in rounds or not.
        sites=session.training_sites,
    )
    for site, steps in findings.withheld.items():
        record.findings.withheld.setdefault(site, {}).update(steps)
    result = findings.results.get(analysis.name)
    if result is None:
        reason = findings.not_computed.get(analysis.name, "no result")
        raise CampaignFailed(f"the model could not be solved from the sites' sums: {reason}")
    if phase.name == PREPARATION:
        record.preparation[fold] = {
            **{key: value for key, value in result.items() if key != "model"},
            "sites": findings.contributors[analysis.name],
            "withheld": {site: steps[analysis.name] for site, steps in sorted(findings.withheld.items())},
        }
    if isinstance(analysis, NoisedAnalysis):
        record.noised_at += findings.contributors[analysis.name]
    return basis.with_sums(phase.name, findings.made_from[analysis.name])
