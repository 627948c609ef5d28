"""Series that are weighted by T1 and no whole head, or no plain one: kept out by what their texts say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import MRImageStorage

from fedage.client.cohort.bids.contrast import is_contrast_enhanced
from fedage.client.cohort.dicom.content import Code, HeaderText, derive_content
from fedage.client.cohort.dicom.descriptions import fold_text
from fedage.client.cohort.indexing.bids_content import described_content
from fedage.common.estimators.head_volumes import head_input
from tests.client.cohort.dicom.contents import content

TAKES = head_input("").takes
MR: dict[str, Any] = {"Modality": "MR", "SOPClassUID": MRImageStorage, "ViewPosition": None}


def why_not(*descriptions: str, study: str = "", body_part: str = "", region: str = "") -> str | None:
    header = HeaderText(
        modality="MR",
        sop_class="1.2.840.10008.5.1.4.1.1.4",
        descriptions=[fold_text(text) for text in descriptions],
        study=fold_text(study),
        body_part=fold_text(body_part),
        regions=[Code(value=region)] if region else [],
        image_type=("ORIGINAL", "PRIMARY", "M", "NORM"),
    )
    return TAKES.why_not(derive_content(header))


@pytest.mark.parametrize(
    "text",
    [
        *("T1 KNEE SAG", "t1_tse_sag_lws", "SAG T1 C-SPINE", "t1 vibe dixon abdomen", "T1 PROSTATE", "T1 TSE Schulter"),
        *(
            "T1 Leber",
            "T1 orbit",
            "T1 pituitary dyn",
            "T1 IAC",
            "T1 heart",
            "t1 Hypophyse cor",
            "T1 Hüfte",
            "T1 thorax",
        ),
        *("T1 3D 膝", "T1 skull base", "T1 neck", "T1 Fetal"),
    ],
)
def test_another_part_is_not_taken(text: str) -> None:
    assert why_not(text) == "other-body-part"
    assert why_not("T1 SAG", study=text) == "other-body-part"
    assert why_not(text, body_part="HEAD") == "contradictory-body-part"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "T1 MPRAGE",
            "sT1W_3D_TFE",
            "T1 SE TRA FS",
            "MPRAGE ADNI",
            "BRAVO",
            "T1 MPRAGE BRAIN AND ORBIT",
            "T1 Hippocampus",
        ),
        *("MP2RAGE_UNI-DEN", "T1 头", "T1 Schädel", "t1_mprage_sag_p2_iso", "T1 HEAD NECK", "T1 postop"),
    ],
)
def test_heads_are(text: str) -> None:
    assert why_not(text) is None
    assert why_not(text, study="MR Kopf und HWS") is None


@pytest.mark.parametrize(
    "body_part", ["HEAD", "BRAIN", "Kopf", "Schädel", "SCHAEDEL", "HEADNECK", "HEAD NECK", "Gehirn", "NEURO", "Crâne"]
)
def test_a_head_has_many_names(body_part: str) -> None:
    assert why_not("T1 MPRAGE", body_part=body_part) is None
    assert why_not("T1 MPRAGE", body_part=body_part, region="T-A0100") is None


@pytest.mark.parametrize("body_part", ["KNEE", "NECK", "CSPINE", "ABDOMEN", "LWS"])
def test_other_parts_that_are_stated_stay_out(body_part: str) -> None:
    assert why_not("T1 SAG", body_part=body_part) == "other-body-part"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        *(
            ("AX T1 POST", "contrast-enhanced"),
            ("T1 Postkontrast", "contrast-enhanced"),
            ("T1 POST-GD", "contrast-enhanced"),
        ),
        *(
            ("MP2RAGE_INV1", "derived"),
            ("WIP MP2RAGE INV2", "derived"),
            ("T1 SUB", "derived"),
            ("T1_Images", "derived"),
        ),
        *(("T1 MTC ON", "contradictory-view"), ("T1 neuromelanin", "contradictory-view"), ("T1rho", "other-view")),
        *(("T1 black blood", "contradictory-view"), ("T1 DCE", "contradictory-view"), ("T1 mask", "derived")),
    ],
)
def test_no_plain_t1_weighting_is_not_taken(text: str, reason: str) -> None:
    assert why_not(text) == reason


@pytest.mark.parametrize(
    ("name", "sidecar", "reason"),
    [
        ("sub-1_T1w.nii", {"BodyPartExamined": "KNEE"}, "other-body-part"),
        ("sub-1_T1w.nii", {"SeriesDescription": "T1 LWS sag"}, "other-body-part"),
        ("sub-1_T1w.nii", {"BodyPartExamined": "BRAIN", "ProtocolName": "t1 knee"}, "contradictory-body-part"),
        ("sub-1_T1w.nii", {"SeriesDescription": "AX T2 FLAIR"}, "contradictory-view"),
        ("sub-1_T1w.nii", {"Modality": "CT"}, "contradictory-view"),
        ("sub-1_T1w.nii", {"SeriesDescription": "QC phantom T1"}, "quality-control"),
        ("sub-1_acq-cspine_T1w.nii", {}, "other-body-part"),
        ("sub-1_acq-kneeT1_T1w.nii.gz", {}, "other-body-part"),
        ("sub-1_acq-phantom_T1w.nii", {}, "quality-control"),
        ("sub-1_acq-mask_T1w.nii", {}, "derived"),
        ("sub-1_inv-2_T1w.nii", {}, "derived"),
        ("sub-1_chunk-2_T1w.nii", {}, "partial-view"),
        ("sub-1_acq-post_T1w.nii", {}, "contrast-enhanced"),
        ("sub-1_acq-T1KM_T1w.nii", {}, "contrast-enhanced"),
        ("sub-1_T1w.nii", {}, None),
        ("sub-1_acq-postop_T1w.nii", {"BodyPartExamined": "HEAD", "SeriesDescription": "T1 MPRAGE"}, None),
        ("sub-1_T1w.nii", {"SeriesDescription": "T1 FLAIR", "Modality": "MR"}, None),
        ("sub-1_acq-mprage_T1w.nii", {"SeriesDescription": "t1_mpr_sag", "BodyPartExamined": "SKULL"}, None),
        ("sub-1_T1w.nii", {"SeriesDescription": ["a"], "BodyPartExamined": None, "Modality": 5}, "contradictory-view"),
    ],
)
def test_bids_volumes_are_read_with_their_sidecar(name: str, sidecar: dict[str, object], reason: str | None) -> None:
    assert TAKES.why_not(described_content(name, sidecar)) == reason


def test_an_acquisition_after_an_operation_has_no_contrast_agent() -> None:
    names = ("sub-1_acq-postop_T1w.nii", "sub-1_acq-preKM_T1w.nii", "sub-1_acq-postero_T1w.nii")
    assert not any(is_contrast_enhanced(name, {}) for name in names)


@pytest.mark.parametrize(
    ("elements", "taken"),
    [
        ({"RequestedProcedureDescription": "MR KNEE LEFT"}, False),
        ({"PerformedProcedureStepDescription": "MRT LWS"}, False),
        ({"RequestedProcedureDescription": "RM ADDOME E FEGATO"}, False),
        ({"RequestedProcedureDescription": "MR BRAIN"}, True),
        ({"StudyDescription": "MR BRAIN", "RequestedProcedureDescription": "MR KNEE"}, True),
    ],
)
def test_a_procedure_s_name_tells_the_part_where_the_study_has_none(
    tmp_path: Path, elements: dict[str, Any], taken: bool
) -> None:
    found = content(tmp_path / "a.dcm", **{**MR, "SeriesDescription": "T1 SAG", **elements})
    assert (TAKES.why_not(found) is None) is taken
