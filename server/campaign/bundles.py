"""The bundle that a campaign validates or begins with: from a file to the run's folder, and from there to the sites."""

from __future__ import annotations

from pathlib import Path

from fedage.common.bundle.container import Bundle, BundleRefused
from fedage.common.bundle.fits import estimator_of, require_campaign, require_no_own_statistics, require_weights
from fedage.common.campaign import Campaign
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bundle_file import load_bundle

BUNDLE = "bundle.fedage"
"""Of a run's folder."""


def put_bundle(campaign: Campaign, path: Path | None, *, folder: Path) -> None:
    """Check that a campaign's bundle is the one in a file, and put it into a run's folder; nothing without a bundle.

    Raises
    ------
    FedAgeError
        If one is needed and not given, or the other way round.
    BundleRefused
        If it is not the one that the file names, or not of the file's estimator and options.
    """
    if campaign.bundle_needed is None:
        if path is not None:
            raise FedAgeError(
                "--bundle is for campaign files that name one (estimator.bundle, training.start_bundle); leave it out"
            )
        return
    if path is None:
        raise FedAgeError(
            f"the campaign file needs the bundle with the SHA-256 {campaign.bundle_needed[:16]}…; give it with --bundle"
        )
    content, bundle = load_bundle(path)
    if bundle.digest != campaign.bundle_needed:
        raise BundleRefused(
            f"{path} has the SHA-256 {bundle.digest[:16]}…, and the campaign file names "
            f"{campaign.bundle_needed[:16]}…; give that bundle, or correct the digest in the file"
        )
    require_campaign(bundle.description, campaign, name=str(path))
    require_no_own_statistics(bundle.description, name=str(path))
    require_weights(estimator_of(bundle.description, name=str(path)), bundle.weights, name=str(path))
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / BUNDLE, content)


def bundle_of_run(campaign: Campaign, folder: Path) -> tuple[bytes, Bundle] | None:
    """The bundle in a run's folder; None where the campaign needs none. Raises `BundleRefused`."""
    if campaign.bundle_needed is None:
        return None
    content, bundle = load_bundle(folder / BUNDLE)
    if bundle.digest != campaign.bundle_needed:
        raise BundleRefused(f"{folder / BUNDLE} is not the bundle that the campaign file names; start another run")
    return content, bundle
