"""What a campaign file says of sites that only validate, and of a bundle, against its other keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from fedage.common.campaign_file._sound import ValidValues
from fedage.common.toml.problems import Problem
from fedage.common.toml.words import show


def has_bundle(sound: ValidValues) -> bool:
    """Whether the file validates a bundle."""
    return sound.has("estimator") and sound["estimator.bundle"] is not None


def bundle_alone(sound: ValidValues) -> Iterator[Problem]:
    """A file that validates a bundle trains nothing."""
    if not has_bundle(sound):
        return
    if sound.has("training"):
        yield Problem(
            "training", "[training] must not be there with estimator.bundle: its model is ready; remove one of them"
        )
    for key, why in (
        ("fractions", "nobody is trained on, so everybody is reported on; use validation.folds for the bias line"),
        ("final_model", "the bundle is the final model; remove it"),
        ("sites", "all sites only validate a bundle; remove it"),
    ):
        if sound.has("validation") and sound[f"validation.{key}"] and sound.given(f"validation.{key}"):
            yield Problem(f"validation.{key}", f"validation.{key} must not be there with estimator.bundle: {why}")


def validating_sites(sound: ValidValues) -> Iterator[Problem]:
    """Sites that only validate, and the final model that they may judge."""
    if not sound.has("validation") or has_bundle(sound):
        return
    if sound["validation.final_model"] and sound["validation.folds"] is None and not sound.wrong("validation.folds"):
        yield Problem(
            "validation.final_model",
            "validation.final_model = true: needs validation.folds; without folds there is one model, which is "
            "exported; remove it, or set validation.folds",
        )
    validating, expected = sound["validation.sites"] or (), sound["campaign.sites"] or ()
    yield from repeated("validation.sites", validating, "list every site once")
    if not expected or sound.wrong("campaign.sites"):
        return
    for site in validating:
        if site is not None and site not in expected:
            yield Problem(
                "validation.sites",
                f"validation.sites: {site} must be a site of campaign.sites ({', '.join(expected)}); correct the name "
                "or list the site there too",
            )
    if set(expected) <= set(validating):
        yield Problem(
            "validation.sites",
            "validation.sites has every site of campaign.sites, so nobody trains; leave some out, or validate a model "
            "that is ready with estimator.bundle",
        )


def repeated(key: str, items: Iterable[Any], mend: str, *, what: str = "item") -> Iterator[Problem]:
    """Items of a list that are there more than once."""
    counts = Counter(item for item in items if item is not None)
    for item, count in counts.items():
        if count > 1:
            yield Problem(key, f"{key}: the {what} {show(item)} is there {count} times, allowed is once; {mend}")
