"""Whether a volume of a BIDS data set is no plain T1-weighted image: acquired with a contrast agent, or a localizer.

The entity `ce-` states it (`ce-gadolinium`). Where it is not used, laboratories write it into `acq-` (`acq-postgd`),
and the JSON sidecar names the agent. A label such as `acq-precontrast` states that there was none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

CONTRAST_ENHANCED = "contrast-enhanced"
"""Word for such an image in the store's column `special`."""
_ENTITY = re.compile(r"_(ce|acq)-([A-Za-z0-9+]+)(?=_)")
_WITHOUT = re.compile(r"^(?:none|no|not|na|pre|without|wo|non|native|plain|un|before|0)|(?:pre|no|non|without)$", re.I)
_AGENT = re.compile(
    r"gado|gad(?![a-z])|gd(?![a-z])|dota|contrast|postce|(?:^|t1w?|with|plus|\+)ce(?![a-z])|t1c(?![a-z])"
    r"|(?:^|t1w?|nach|mit)km(?![a-z])|^post$|t1w?post(?!op)|^post(?:t1|km|c(?![a-z]))",
    re.I,
)
_UNKNOWN = frozenset(["", "N/A", "NA", "NONE", "NO", "UNKNOWN", "0", "FALSE", "NULL"])
LOCALIZER = "localizer"
_LOCALIZER = re.compile(r"_acq-[A-Za-z0-9+]*(?:locali[sz]er|scout|survey|topogram|inplane)", re.I)
_SIDECAR = ("ContrastBolusIngredient", "ContrastBolusAgent")


def is_localizer(name: str) -> bool:
    """Whether a volume's name states a scan that only planned others, or a slab beside a functional one.

    Examples
    --------
    >>> [is_localizer(f"sub-1_acq-{label}_T1w.nii") for label in ("scout", "headLocalizer", "inplaneT1", "mprage")]
    [True, True, True, False]
    """
    return bool(_LOCALIZER.search(name))


def is_contrast_enhanced(name: str, sidecar: Mapping[str, object]) -> bool:
    """Whether a volume's name or its JSON states a contrast agent.

    Examples
    --------
    >>> names = ("sub-1_ce-gadolinium_T1w.nii", "sub-1_acq-postGd_T1w.nii", "sub-1_acq-mprage_T1w.nii")
    >>> [is_contrast_enhanced(name, {}) for name in names]
    [True, True, False]
    """
    entities = dict(_ENTITY.findall(name))
    agent, acquisition = entities.get("ce", ""), entities.get("acq", "")
    if agent:
        return not _WITHOUT.search(agent)
    if acquisition and _AGENT.search(acquisition):
        return not _WITHOUT.search(acquisition)
    return any(str(sidecar.get(key) or "").strip().upper() not in _UNKNOWN for key in _SIDECAR)
