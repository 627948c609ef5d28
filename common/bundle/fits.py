"""Whether a bundle is one of an estimator as it is installed here, and the estimator it configures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from fedage.common import estimators
from fedage.common.bundle.container import Arrays, BundleRefused
from fedage.common.bundle.description import BoundedColumn, Description, InputTaken
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import Estimator, Input
from fedage.common.estimators.configure import configured
from fedage.common.estimators.outcomes import begun_by
from fedage.common.estimators.table import FEATURE, FeatureOptions
from fedage.common.networks.arrays import ModelRefused

NOT_INSTALLED = "is not installed here; install the package that brings it, or a release that has it"


def features_of(description: Description) -> tuple[str, ...]:
    """Features of a table by their names there, in the model's order; none for a model on images."""
    return tuple(column.removeprefix(FEATURE) for column in description.row if column.startswith(FEATURE))


def plain_options(options: Mapping[str, Any], estimator: Estimator) -> dict[str, Any]:
    """Options of a campaign file with the features of a table by their names, whatever patterns found them."""
    plain = dict(options)
    if isinstance(estimator.options, FeatureOptions):
        names = [column.removeprefix(FEATURE) for column in estimator.row_columns if column.startswith(FEATURE)]
        plain |= {"features": names}
        plain.pop("exclude", None)
    return plain


def estimator_of(description: Description, *, name: str = "the bundle") -> Estimator:
    """The estimator that a description configures.

    Raises
    ------
    BundleRefused
        If it is not installed here, or another version of it is.
    """
    wanted = description.estimator
    if wanted not in estimators.names():
        raise BundleRefused(f"{name} is of the estimator {wanted!r}, which {NOT_INSTALLED}")
    try:
        estimator = estimators.make(wanted, description.options).for_table(features_of(description))
    except (ValidationError, FedAgeError, ValueError):
        raise BundleRefused(
            f"{name} has options that the {wanted} installed here does not know; install the release that made it "
            f"({description.fedage_version})"
        ) from None
    stated = {
        "preprocessing is": (description.samples_version, estimator.samples_version),
        "columns of a row are": (description.row, tuple(estimator.row_columns)),
        "inputs are": (_ranks(description.inputs), _ranks(estimator.inputs)),
        "shapes of a sample are": (
            description.shapes,
            {key: tuple(shape) for key, shape in estimator.shapes().items()},
        ),
        "predicted columns are": (
            {one.column: (one.lower, one.upper) for one in description.outputs},
            {one.column: (one.lower, one.upper) for one in estimator.outputs},
        ),
    }
    for what, (then, now) in stated.items():
        if then != now:
            raise BundleRefused(
                f"{name} was made by another version of {wanted}: its {what} not "
                f"what the one installed here has; install the release that made it ({description.fedage_version}), or "
                "train the model anew"
            )
    return estimator


def fields_of(estimator: Estimator, options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a description that the estimator and its options in the campaign file give."""
    scale = estimator.options.scale if isinstance(estimator.options, FeatureOptions) else None
    return {
        "estimator": estimator.name,
        "options": plain_options(options, estimator),
        "samples_version": estimator.samples_version,
        "shapes": _shapes(estimator),
        "inputs": tuple(
            InputTaken(name=one.name, rank=one.rank, modalities=one.modalities, optional=one.optional)
            for one in estimator.inputs
        ),
        "row": tuple(estimator.row_columns),
        "outputs": tuple(
            BoundedColumn(column=one.column, lower=one.lower, upper=one.upper) for one in estimator.outputs
        ),
        "age_scale": scale.kind if scale is not None else "years",
        "age_offset_years": scale.offset_years if scale is not None else 0.0,
    }


def _shapes(estimator: Estimator) -> dict[str, tuple[int, ...]]:
    return {name: tuple(shape) for name, shape in estimator.shapes().items()}


def _ranks(inputs: Sequence[InputTaken | Input]) -> dict[str, int]:
    return {one.name: one.rank for one in inputs}


def require_campaign(description: Description, campaign: Campaign, *, name: str = "the bundle") -> None:
    """Refuse a bundle that is not of the estimator and options that a campaign file states.

    Raises
    ------
    BundleRefused
    """
    configured_here, estimator = configured(campaign, features_of(description)), estimator_of(description, name=name)
    begins = configured_here is not None and campaign.bundle is None
    asked_for = begun_by(configured_here) if configured_here is not None and begins else configured_here
    if asked_for is None or asked_for.name != estimator.name:
        raise BundleRefused(
            f"{name} is of {estimator.name}, and the campaign file's estimator "
            f"{'begins with' if begins and asked_for is not configured_here else 'is'} "
            f"{asked_for.name if asked_for else 'none'}; "
            "correct estimator.name, or give the bundle that the file was written for"
        )
    if asked_for.options != estimator.options:
        raise BundleRefused(
            f"{name} has other options than estimator.options of the campaign file, features by their names included; "
            "write the file with fedage campaign new --bundle"
        )


def require_no_own_statistics(description: Description, *, name: str = "the bundle") -> None:
    """Refuse, in a campaign, a bundle whose batch normalisation each site computes by itself.

    Raises
    ------
    BundleRefused
    """
    if description.own_statistics:
        raise BundleRefused(
            f"{name} has no means and variances for its batch normalisation: in a campaign a site would compute them "
            "with a model that the coordinator brings, and one patient could move the predictions of all; predict with "
            "fedage predict at the site, or list the site under validation.sites where the model is trained"
        )


def require_weights(estimator: Estimator, weights: Arrays, *, name: str = "the bundle") -> None:
    """Refuse arrays that are not a model of this estimator, such as a checkpoint of another one. Loads its network.

    Raises
    ------
    BundleRefused
    """
    try:
        estimator.predictor(weights, device="cpu")
    except ModelRefused as refused:
        raise BundleRefused(f"{name} holds no model of {estimator.name} with these options: {refused}") from None
    except (KeyError, ValueError, RuntimeError) as error:
        raise BundleRefused(
            f"{name} holds no model of {estimator.name} with these options ({type(error).__name__})"
        ) from None
