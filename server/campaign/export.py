"""`fedage campaign export`: a finished run's model as a signed bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import safetensors.numpy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from safetensors import SafetensorError

from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.bias.results import GapsByAge
from fedage.common.analyses.evaluation.results import CountsByAge, Metrics, evaluation
from fedage.common.bundle.card import model_card
from fedage.common.bundle.container import write_bundle
from fedage.common.bundle.description import Description, Errors, Line, Origin, TrainedOn
from fedage.common.bundle.fits import fields_of, require_weights
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator
from fedage.common.estimators.configure import configured
from fedage.common.estimators.table import FEATURE
from fedage.common.presentation.participation import training_text
from fedage.common.protocol.messages import payload_digest
from fedage.common.record.parts import WHOLE_SITE
from fedage.common.version import __version__
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.server.record.results import Results, read_results
from fedage.server.record.run_folder import CAMPAIGN, RESULTS

MODEL, ABOUT = "model.safetensors", "fedage"
_LENGTH_BYTES = 8


class NoBundle(FedAgeError):
    """A run has no model that can be exported; the message says why and the mend."""


def export_bundle(run: Path, *, key: Ed25519PrivateKey) -> tuple[bytes, Description]:
    """The bundle of the run recorded in a folder, and what it says.

    Raises
    ------
    NoBundle, BundleRefused
        If the run did not finish or has no model for everybody, or its model is none of the campaign's estimator.
    FedAgeError
        If the folder is no run's.
    """
    results = read_results(run / RESULTS)
    campaign = load_campaign(run / CAMPAIGN)
    _must_have_a_model(run, campaign, results)
    weights, about = _model(run / MODEL)
    if about.get("campaign_digest") != campaign.digest or results.campaign.digest != campaign.digest:
        raise NoBundle(f"{run / MODEL} is of another campaign file than {run / CAMPAIGN}; put the run's own back")
    estimator = _estimator(run, campaign, about)
    require_weights(estimator, weights, name=str(run / MODEL))
    description = _description(campaign, results, estimator, weights=weights)
    return write_bundle(description, weights, key=key), description


def _must_have_a_model(run: Path, campaign: Campaign, results: Results) -> None:
    if campaign.estimator is None:
        raise NoBundle(f"{run}: the campaign has no estimator, so there is no model to export")
    if campaign.training is not None and campaign.training.strategy == "fedbn" and not _own_statistics(campaign):
        raise NoBundle(
            f'{run}: with training.strategy = "fedbn" batch normalisation stays at the sites that trained, so that the '
            'model predicts nowhere else; run the file with training.local_norms = "statistics", or another strategy'
        )
    if results.run.status != "finished":
        raise NoBundle(f"{run}: the run {results.run.status}; export one that finished, as only it was judged")
    if not (run / MODEL).is_file() and campaign.validation.folds is not None:
        raise NoBundle(
            f"{run}: the campaign has {campaign.validation.folds} folds and made a model for each, none on everybody; "
            "run a file without folds"
        )
    if not (run / MODEL).is_file():
        raise NoBundle(f"{run / MODEL} is missing; give the folder of a run, as the coordinator or --out has it")


def _own_statistics(campaign: Campaign) -> bool:
    training = campaign.training
    return training is not None and training.strategy == "fedbn" and training.local_norms == "statistics"


def _model(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays, and what the file says of them."""
    content = path.read_bytes()
    try:
        weights = safetensors.numpy.load(content)
        header = json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "little")])
        about = json.loads(header["__metadata__"][ABOUT])
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise NoBundle(f"{path} is cut off, or no model that a run wrote; put the run's own back") from None
    return weights, dict(about)


def _estimator(run: Path, campaign: Campaign, about: Mapping[str, Any]) -> Estimator:
    row = [str(column).removeprefix(FEATURE) for column in about.get("row", ()) if str(column).startswith(FEATURE)]
    options = campaign.estimator.options if campaign.estimator else {}
    try:
        estimator = configured(campaign, row or list(options.get("features", ())))
    except (FedAgeError, RuntimeError):
        estimator = None
    if estimator is None:
        raise NoBundle(
            f"{run / MODEL} does not say which features a pattern of the campaign file found: an earlier release made "
            "it; run the campaign anew"
        )
    return estimator


def _description(
    campaign: Campaign, results: Results, estimator: Estimator, *, weights: Mapping[str, NDArray[Any]]
) -> Description:
    assert campaign.estimator is not None
    bias, test = correction_of(results), evaluation(results).test.raw
    description = Description(
        fedage_version=__version__,
        origin=Origin(
            campaign=campaign.campaign.name,
            purpose=campaign.campaign.purpose,
            digest=campaign.digest,
            run=results.run.id,
            environment=results.run.environment,
            guard=results.run.guard,
            phantoms=results.phantoms,
            folds=campaign.validation.folds,
            finished_utc=results.run.finished_utc,
        ),
        **fields_of(estimator, campaign.estimator.options),
        table=campaign.table.model_dump(mode="json") if campaign.table is not None else None,
        modality=campaign.cohort.modality,
        trained_on=_trained_on(campaign, results),
        bias_method=campaign.bias.method,
        lines={site: _line(line) for site, line in bias.lines.items()},
        overall_line=_line(bias.overall) if bias.overall is not None else None,
        errors=_errors(test.overall),
        errors_by_site={
            site: site_errors for site, metrics in test.by_site.items() if (site_errors := _errors(metrics)) is not None
        },
        own_statistics=_own_statistics(campaign),
        privacy=_privacy(results),
        weights_sha256=payload_digest(weights),
        card="",
    )
    return description.model_copy(update={"card": model_card(description)})


def _privacy(results: Results) -> str:
    """The differential privacy of the weights, of the site that it cost most; empty without."""
    spent = [site.privacy for site in results.sites if site.privacy is not None and site.privacy.epsilon is not None]
    if not spent:
        return ""
    worst = max(spent, key=lambda one: one.epsilon or 0.0)
    of_sites = worst.adjacency == WHOLE_SITE
    unit = "each whole site, towards everybody but the coordinator" if of_sites else "each patient of each site"
    return (
        f"The weights are differentially private for {unit}: ε = {worst.epsilon:.3g} at most, δ = {worst.delta:g}, to "
        f"{worst.adjacency}. The errors and bias lines of this card are not covered."
    )


def _line(line: Any) -> Line:
    return Line(slope=line.slope, intercept_years=line.intercept_years, n=line.n)


def _errors(metrics: Metrics | None) -> Errors | None:
    if metrics is None:
        return None
    return Errors(
        n=metrics.n,
        mae_years=metrics.mae_years,
        mean_error_years=metrics.mean_error_years,
        mae_of_mean_years=metrics.mae_of_mean_years,
    )


def _trained_on(campaign: Campaign, results: Results) -> TrainedOn:
    whole, _ = training_text(results)
    partly = {site for made in results.preparation for site in made.sites}
    partly |= {site for done in results.rounds for site in done.sites}
    sites = {site.name: _patients(site.patients_by_part, site.patients) for site in results.sites}
    names = {site.name for site in whole} | partly
    return TrainedOn(
        sites={name: sites[name] for name in sorted(names) if name in sites},
        train_on=campaign.cohort.train_on,
        age_limits_years=(campaign.cohort.age_min_years, campaign.cohort.age_max_years),
        ages_seen_years=_ages_seen(results),
    )


def _patients(parts: Mapping[str, int | None], everybody: int | None) -> int | None:
    """Who was trained on: the part of that name, or with folds all of whom the folds are made."""
    if "train" in parts:
        return parts["train"]
    counts = [count for count in parts.values() if count is not None]
    return sum(counts) if counts and len(counts) == len(parts) else everybody


def _ages_seen(results: Results) -> tuple[float, float] | None:
    """Between which ages test patients are told of: bins whose counts are not withheld."""
    seen: list[tuple[float, float]] = []
    for grid in results.of_type(CountsByAge).values():
        seen += [pair for pair, cells in zip(pairwise(grid.edges_years), grid.counts, strict=True) if sum(cells)]
    for gaps in results.of_type(GapsByAge).values():
        seen += [pair for pair, count in zip(pairwise(gaps.edges_years), gaps.counts, strict=True) if count]
    return (min(low for low, _ in seen), max(high for _, high in seen)) if seen else None
