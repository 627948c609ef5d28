"""Label maps of a BIDS data set: segmentations that pipelines made from a session's T1-weighted volume.

They lie beside the volume or in `derivatives/PIPELINE/sub-…/[ses-…/]anat`. Only those in the volume's own space are
taken: one in another space (`space-MNI152…`) does not fit the volume. The labels of two descriptions (`desc-aseg`,
`desc-aparcaseg`) mean different things, so each description is a separate view.
"""

from __future__ import annotations

import re
from pathlib import Path

LABEL_MAP = "label-map"
"""Word for a label map in the store's column `special`; an estimator gets one only if it declares such an input."""
VIEW = "DSEG"
DERIVATIVES = "derivatives"

_NAME = re.compile(
    r"(?P<participant>sub-[A-Za-z0-9+]+)(_(?P<session>ses-[A-Za-z0-9+]+))?(_[a-z]+-[A-Za-z0-9+]+)*_dseg\.nii(\.gz)?"
)
_OTHER_SPACE = re.compile(r"_space-(?!T1w_|orig_|individual_)")
_DESCRIPTION = re.compile(r"_desc-([A-Za-z0-9+]+)_")


def is_label_map(name: str, *, participant: str, session: str) -> bool:
    """Whether a file is a label map of this participant and session (empty: no sessions), in the volume's space.

    Examples
    --------
    >>> names = ("sub-1_dseg.nii.gz", "sub-1_desc-aseg_dseg.nii", "sub-2_dseg.nii", "sub-1_space-MNI_dseg.nii")
    >>> [is_label_map(name, participant="sub-1", session="") for name in names]
    [True, True, False, False]
    """
    match = _NAME.fullmatch(name)
    if match is None or _OTHER_SPACE.search(name):
        return False
    return match["participant"] == participant and match["session"] in (None, session)


def label_map_view(name: str) -> str:
    """`DSEG`, or with the description in capitals, e.g. `DSEG-ASEG`."""
    match = _DESCRIPTION.search(name)
    return f"{VIEW}-{match[1].upper()}" if match else VIEW


def anat_folders(pipelines: list[Path], *, participant: str, session: str, anat: str) -> list[Path]:
    """Folders where pipelines put their results for a session."""
    return [pipeline / participant / session / anat for pipeline in pipelines]
