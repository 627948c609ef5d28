"""Label maps of a BIDS data set: segmentations that pipelines made of a session's T1-weighted volume.

They lie beside the volume or in `derivatives/PIPELINE/sub-…/[ses-…/]anat`. Only those in the volume's own space are
taken: one that names another (`space-MNI152…`) shows another head. The labels of two descriptions (`desc-aseg`,
`desc-aparcaseg`) mean different things, so that each is a view of its own.
"""

from __future__ import annotations

import re
from pathlib import Path

LABEL_MAP = "label-map"
"""What the store calls it, among what makes an image special: no estimator gets one as an image unless it says so."""
VIEW = "DSEG"
DERIVATIVES = "derivatives"

_NAME = re.compile(
    r"(?P<participant>sub-[A-Za-z0-9+]+)(_(?P<session>ses-[A-Za-z0-9+]+))?(_[a-z]+-[A-Za-z0-9+]+)*_dseg\.nii(\.gz)?"
)
_OTHER_SPACE = re.compile(r"_space-(?!T1w_|orig_|individual_)")
_DESCRIPTION = re.compile(r"_desc-([A-Za-z0-9+]+)_")


def is_label_map(name: str, *, participant: str, session: str) -> bool:
    """Whether a file is one of this participant and session (empty: without sessions), in the volume's space.

    Examples
    --------
    >>> names = ("sub-1_dseg.nii.gz", "sub-1_desc-aseg_dseg.nii", "sub-2_dseg.nii", "sub-1_space-MNI_dseg.nii")
    >>> [is_label_map(name, participant="sub-1", session="") for name in names]
    [True, True, False, False]
    """
    found = _NAME.fullmatch(name)
    if found is None or _OTHER_SPACE.search(name):
        return False
    return found["participant"] == participant and found["session"] in (None, session)


def view_of(name: str) -> str:
    """`DSEG`, or with the description in capitals, e.g. `DSEG-ASEG`."""
    found = _DESCRIPTION.search(name)
    return f"{VIEW}-{found[1].upper()}" if found else VIEW


def anat_folders(pipelines: list[Path], *, participant: str, session: str, anat: str) -> list[Path]:
    """Where pipelines put what they made of a session."""
    return [pipeline / participant / session / anat for pipeline in pipelines]
