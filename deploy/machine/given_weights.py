"""A file of published weights that a campaign's first model begins with, held against the digest in its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedage.common.errors import FedAgeError
from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bounded import read_at_most

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fedage.common.campaign import Campaign

GIVEN = "given.safetensors"
"""Its name in the folder of a run."""
_MOST_BYTES = 2 * 2**30


def load_given(path: Path, *, sha256: str) -> dict[str, NDArray[Any]]:
    """The arrays of a file with this digest.

    Raises
    ------
    FedAgeError
        If the file cannot be read, or is another one.
    """
    import safetensors.numpy
    from safetensors import SafetensorError

    from fedage.common.networks.arrays import arrays_sha256

    try:
        arrays = safetensors.numpy.load(read_at_most(path, most_bytes=_MOST_BYTES))
    except (OSError, SafetensorError) as error:
        raise FedAgeError(
            f"{path} cannot be read as a file of weights ({getattr(error, 'strerror', None) or error}); give the one "
            "that `fedage campaign weights` made"
        ) from None
    found = arrays_sha256(arrays)
    if found != sha256:
        raise FedAgeError(
            f"{path} has the digest {found}, the campaign file names {sha256}; give the file whose digest it names"
        )
    return arrays


def keep_given(campaign: Campaign, weights: Path | None, *, folder: Path | None = None) -> None:
    """Check the file that a campaign needs, and put it into the folder of its run if one is given.

    Raises
    ------
    FedAgeError
        If the campaign needs a file and none is given, needs none and one is, or the file is another one.
    """
    # Imported here: the folder of a run needs only the file's name.
    from fedage.common.estimators.configure import configured

    estimator = configured(campaign) if campaign.estimator is not None and campaign.table is None else None
    needed = "" if estimator is None or campaign.bundle is not None else estimator.given_sha256
    if not needed:
        if weights is not None:
            raise FedAgeError("the campaign file names no weights to begin with; leave out --weights, or name them")
        return
    if weights is None:
        raise FedAgeError(f"the campaign's first model begins with the weights {needed}; give their file as --weights")
    load_given(weights, sha256=needed)
    if folder is not None:
        write_atomically(folder / GIVEN, weights.read_bytes())
