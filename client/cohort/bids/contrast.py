"""Whether a volume of a BIDS data set is no plain T1-weighted image of a head.

The entity `ce-` states it (`ce-gadolinium`). Where it is not used, laboratories write it into `acq-` (`acq-postgd`),
and the JSON sidecar names the agent. A label such as `acq-precontrast` states that there was none. The sidecar also has
what the DICOM header said of body part, modality and series, which is read as there; `acq-` may name another part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fedage.client.cohort.dicom.content import HeaderText, derive_content
from fedage.client.cohort.dicom.descriptions import fold_text, is_quality_control
from fedage.common.estimators.takes import CONTRADICTORY, Content

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
_DESCRIPTIONS = ("SeriesDescription", "ProtocolName")
_OTHER_PART = re.compile(
    r"_acq-[A-Za-z0-9+]*?(knee|spine|neck|shoulder|abdomen|pelvis|prostate|heart|cardiac|liver|thigh|calf|orbit|pituitary"
    r"|iac|temporalbone|plexus|fetal|fetus|breast|wholebody)",
    re.I,
)
_NO_IMAGE = {
    "quality-control": re.compile(r"_acq-[A-Za-z0-9+]*phantom", re.I),
    "derived": re.compile(r"_acq-[A-Za-z0-9+]*(?:mask|segment|subtract)|_inv-[0-9]", re.I),
    "partial-view": re.compile("_chunk-[0-9]"),
}
"""By word of `special`, names of what is no whole volume as it was acquired."""


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


def described_content(name: str, sidecar: Mapping[str, object]) -> Content:
    """View, body part and special words of a volume called T1-weighted.

    Examples
    --------
    >>> described_content("sub-1_T1w.nii", {"BodyPartExamined": "KNEE"}).body_part
    'KNEE'
    >>> described_content("sub-1_acq-cspine_T1w.nii", {}).body_part, described_content("sub-1_T1w.nii", {}).view
    ('SPINE', 'T1W')
    >>> described_content("sub-1_T1w.nii", {"SeriesDescription": "AX T2 FLAIR"}).view
    'CONTRADICTORY'
    """
    descriptions = [fold_text(str(sidecar.get(key) or "")) for key in _DESCRIPTIONS]
    stated = fold_text(str(sidecar.get("BodyPartExamined") or ""))
    of_header = derive_content(HeaderText(modality="MR", body_part=stated, descriptions=descriptions))
    match = _OTHER_PART.search(name)
    words = {word for word, pattern in _NO_IMAGE.items() if pattern.search(name)}
    if is_quality_control(descriptions):
        words.add("quality-control")
    if is_contrast_enhanced(name, sidecar):
        words.add(CONTRAST_ENHANCED)
    if is_localizer(name):
        words.add(LOCALIZER)
    # Where the texts name several weightings (T1 FLAIR), the file's name decides.
    is_other = (
        of_header.view not in ("", "T1W", CONTRADICTORY) or str(sidecar.get("Modality") or "MR").strip().upper() != "MR"
    )
    return Content(
        view=CONTRADICTORY if is_other else "T1W",
        body_part=match[1].upper() if match else of_header.body_part,
        special=" ".join(sorted(words)),
    )
