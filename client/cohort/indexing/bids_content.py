"""What a volume of a BIDS data set shows that is called T1-weighted: by its name, and by its JSON sidecar.

The sidecar has what the DICOM header said of body part, modality and series, which is read as there. `acq-` may name
another part of the body, or that it is no image of a patient.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from fedage.client.cohort.bids.contrast import CONTRAST_ENHANCED, LOCALIZER, is_contrast_enhanced, is_localizer
from fedage.client.cohort.dicom.content import HeaderText, derive_content
from fedage.client.cohort.dicom.descriptions import fold_text, is_quality_control
from fedage.common.estimators.takes import CONTRADICTORY, Content

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
