"""Making one model together: what a table's estimator needs of all sites first, then rounds, unless it is exact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fedage.common.errors import FedAgeError
from fedage.common.estimators._table import TableBase
from fedage.common.estimators.base import Trainable
from fedage.common.estimators.configure import agreed_features, configured, initial_seed, preparation
from fedage.common.networks.arrays import Weights, outline, state_to_arrays
from fedage.common.networks.roles import roles_of
from fedage.common.protocol import ANALYSE, PreparedSums
from fedage.server.analyses import Findings, run_stage
from fedage.server.rounds import save_model, train
from fedage.server.run_folder import RunFolder
from fedage.server.run_model import RunModel
from fedage.server.session import CampaignFailed, Session
from fedage.server.strategies import Spool, make_strategy

if TYPE_CHECKING:
    from fedage.server.conduct import Record


def make_model(session: Session, record: Record, *, folder: Path, fold: int) -> RunModel:
    """The model of a fold, written to `folder`.

    Raises
    ------
    CampaignFailed
        If the sites' tables do not agree, the preparation fails, or a round loses the quorum.
    """
    campaign = session.campaign
    name = "model.safetensors" if campaign.validation.folds is None else f"model-fold-{fold + 1}.safetensors"
    seed, sums = initial_seed(campaign, fold=fold), None
    try:
        described = {site: answer.info.features for site, answer in record.descriptions.items()}
        features = agreed_features(campaign, described)
        estimator = configured(campaign, features)
    except FedAgeError as error:
        raise CampaignFailed(str(error)) from None
    if estimator is None:
        raise CampaignFailed("the campaign has no estimator, so there is no model to make")
    if isinstance(estimator, TableBase):
        weights, sums = _prepared(session, record, estimator, features, seed=seed, fold=fold)
    else:
        weights = state_to_arrays(estimator.build(seed=seed))
    if campaign.training is None:
        save_model(folder / name, weights, about={"campaign_digest": campaign.digest, "fold": fold})
        return RunModel(weights, sums)
    if not isinstance(estimator, Trainable):
        raise CampaignFailed("the campaign's estimator is exact, and its file has rounds")
    spool = Spool(RunFolder(folder).updates)
    try:
        trained = train(
            session,
            RunModel(weights, sums),
            training=campaign.training,
            strategy=make_strategy(campaign.training, spool),
            roles=roles_of(outline(lambda: estimator.build(seed=seed))),
            path=folder / name,
            records=record.rounds,
            described=record.descriptions,
            fold=fold,
        )
    finally:
        spool.clear()
    return RunModel(trained, sums)


def _prepared(
    session: Session, record: Record, estimator: TableBase, features: tuple[str, ...], *, seed: int, fold: int
) -> tuple[Weights, PreparedSums]:
    analysis = preparation(session.campaign, features)
    if analysis is None:
        raise CampaignFailed("an estimator on tables has no preparation")
    findings = Findings()
    run_stage(
        session,
        [analysis],
        kind=ANALYSE,
        findings=findings,
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
        raise CampaignFailed(f"the model could not be prepared from the sites' sums: {reason}")
    record.preparation[fold] = {
        **{key: value for key, value in result.items() if key != "model"},
        "sites": findings.contributors[analysis.name],
        "withheld": {site: steps[analysis.name] for site, steps in sorted(findings.withheld.items())},
    }
    try:
        return estimator.weights_from(result, seed=seed), findings.made_from[analysis.name]
    except FedAgeError as refused:
        raise CampaignFailed(f"the model could not be made: {refused}") from None
