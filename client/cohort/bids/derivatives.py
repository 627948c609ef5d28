"""Volumes that a hospital's own tools made of a session's T1-weighted volume: without skull, registered, or both.

They lie in `derivatives/NAME/sub-…/[ses-…/]anat`, where the site names the one folder that is read (`derivative` in
`site.toml`): two tools' volumes of one description are not the same input. Their view is `T1W` with the space and the
description of the file's name in capitals, e.g. `T1W-BRAIN` of `sub-1_desc-brain_T1w.nii.gz`, `T1W-MNI152LIN-BRAIN`
of one in a template's space; an estimator gets them only if it asks for that view.
"""

from __future__ import annotations

import re
from pathlib import Path

from fedage.common.errors import FedAgeError

_SPACE = re.compile(r"_space-([A-Za-z0-9+]+)_")
_DESCRIPTION = re.compile(r"_desc-([A-Za-z0-9+]+)_")
_OWN_SPACES = frozenset(["T1W", "ORIG", "INDIVIDUAL"])


def own_space(name: str) -> bool:
    """Whether a derived volume lies on the grid of the volume it was made of.

    >>> [own_space(f"sub-1_{name}_T1w.nii") for name in ("desc-brain", "space-orig", "space-MNI")]
    [True, True, False]
    """
    match = _SPACE.search(name)
    return match is None or match[1].upper() in _OWN_SPACES


def derived_view(name: str) -> str:
    """The view of a derived volume.

    >>> [derived_view(name) for name in ("sub-1_desc-brain_T1w.nii", "sub-1_space-MNI152Lin_desc-brain_T1w.nii.gz")]
    ['T1W-BRAIN', 'T1W-MNI152LIN-BRAIN']
    >>> derived_view("sub-1_T1w.nii")
    'T1W-DERIVED'
    """
    space, description = _SPACE.search(name), _DESCRIPTION.search(name)
    parts = [] if space is None or own_space(name) else [space[1].upper()]
    parts += [description[1].upper()] if description else []
    return "-".join(["T1W", *(parts or ["DERIVED"])])


def derivative_folder(pipelines: list[Path], name: str) -> Path | None:
    """The folder that the site names; None where it names none.

    Raises
    ------
    FedAgeError
        If it is not there.
    """
    if not name:
        return None
    found = next((folder for folder in pipelines if folder.name == name), None)
    if found is None:
        there = ", ".join(sorted(folder.name for folder in pipelines)[:10]) or "nothing"
        raise FedAgeError(
            f"derivative = {name!r} in site.toml is no folder of derivatives/, which has {there}; name one"
        )
    return found
