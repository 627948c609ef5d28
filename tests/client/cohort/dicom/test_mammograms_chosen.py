"""Which mammograms are taken, which are special views, and which exam is the first."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    BreastProjectionXRayImageStorageForPresentation,
)

from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.estimators.takes import Content, Takes
from tests.client.cohort.dicom.contents import CHEST, MG, code, content, view_code
from tests.client.cohort.dicoms import write


@pytest.mark.parametrize(
    ("elements", "special"),
    [
        ({}, ""),
        ({"SeriesDescription": "R CC Diagnostic image and ID", "EstimatedRadiographicMagnificationFactor": "1.07"}, ""),
        ({"ViewCodeSequence": view_code("399162004", modifiers=[code("442581004", "Nipple in profile")])}, ""),
        ({"ViewCodeSequence": view_code("399162004", modifiers=[code("399055006")])}, "spot"),
        ({"ViewCodeSequence": view_code("399162004", modifiers=[code("x", "Magnification")])}, "magnification"),
        ({"ViewCodeSequence": view_code("R-10242", modifiers=[code("R-102D5")])}, "implant-displaced"),
        (
            {"ViewCodeSequence": view_code("R-10242", modifiers=[code("R-102D6"), code("R-102D7")])},
            "magnification spot",
        ),
        ({"ViewCodeSequence": view_code("399162004", modifiers=[code("399011000", "Axillary Tail")])}, "modified-view"),
        ({"EstimatedRadiographicMagnificationFactor": "1.8"}, "magnification"),
        ({"PaddleDescription": "SPOT PADDLE 9CM"}, "spot"),
        ({"SeriesDescription": "L CC Spot Mag"}, "magnification spot"),
        ({"SeriesDescription": "R MLO implant displaced"}, "implant-displaced"),
        ({"PartialView": "YES"}, "partial-view"),
        ({"SeriesDescription": "Stereo 15 deg"}, "biopsy"),
        ({"BiopsyTargetSequence": [Dataset()]}, "biopsy"),
        ({"SeriesDescription": "Specimen L"}, "specimen"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("127457009", "tissue specimen from breast")}, "specimen"),
        ({"SpecimenDescriptionSequence": [code("x")]}, "specimen"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]}, "generated-2d"),
        ({"SeriesDescription": "L CC C-View"}, "generated-2d"),
        ({"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS"]}, "tomosynthesis"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "LEFT"]}, "tomosynthesis"),
        ({"SOPClassUID": BreastProjectionXRayImageStorageForPresentation}, "tomosynthesis"),
        ({"QualityControlImage": "YES"}, "quality-control"),
        ({"SeriesDescription": "ACR phantom"}, "quality-control"),
        ({"ProtocolName": "Magnification"}, "magnification"),
        ({"SeriesDescription": "L MLO Tomosynthesis Slice"}, "tomosynthesis"),
        ({"SeriesDescription": "R CC Intelligent 2D"}, "generated-2d"),
        ({"SeriesDescription": "R CC Synth 2D"}, "generated-2d"),
        ({"SeriesDescription": "R CC Intelligent2D"}, "generated-2d"),
        ({"SeriesDescription": "L MLO Insight2D"}, "generated-2d"),
        ({"SeriesDescription": "R CC S2D"}, "generated-2d"),
        ({"SeriesDescription": "LCC_HE"}, "contrast-enhanced"),
        ({"SeriesDescription": "SenoBright R MLO"}, "contrast-enhanced"),
        ({"SeriesDescription": "L CC le sein"}, ""),
        ({"SeriesDescription": "L CC CESM subtracted"}, "contrast-enhanced subtracted"),
        ({"ImageType": ["DERIVED", "PRIMARY", "RECOMBINED"]}, "subtracted"),
    ],
)
def test_special_mammograms(tmp_path: Path, elements: dict[str, Any], special: str) -> None:
    found = content(tmp_path / "a.dcm", **{**MG, **elements})
    assert found.special == special
    screening = Takes(views=("CC", "MLO"), body_parts=("BREAST",))
    assert screening.why_not(found) == (special.split()[0] if special else None)
    assert Takes(special=frozenset(special.split())).why_not(found) is None


@pytest.fixture
def store(tmp_path: Path) -> CohortStore:
    return CohortStore.open(tmp_path / "home", key=bytes(range(32)))


def chosen(store: CohortStore, takes: Takes = CHEST, *, modalities: tuple[str, ...] = ("CR", "DX")) -> Selection:
    return select(store, modalities=modalities, age_min_years=0, age_max_years=130, takes=takes)


def test_for_presentation_before_for_processing_and_everything_left_out_is_counted(
    store: CohortStore, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    study = {"StudyInstanceUID": "1.2.3", "Modality": "DX"}
    for number in range(4):  # whatever the order of the hashed images is
        write(data / f"raw{number}.dcm", "a", PresentationIntentType="FOR PROCESSING", **study)
    write(data / "shown.dcm", "a", PresentationIntentType="FOR PRESENTATION", **{**study, "Modality": "DR"})
    write(data / "side.dcm", "a", ViewPosition="LL", PresentationIntentType="FOR PRESENTATION", **study)
    write(data / "alone.dcm", "b", PresentationIntentType="FOR PROCESSING", Modality="DX")
    write(data / "hand.dcm", "c", BodyPartExamined="HAND")
    write(data / "mg.dcm", "d", **MG)
    write(data / "phantom.dcm", "e", QualityControlImage="YES")
    write(data / "none.dcm", "f", ViewPosition=None)
    index_folder(store, data)
    found = chosen(store)
    by_key = dict(zip(found.keys, found.images, strict=True))
    assert by_key[store.patient_key("a")][0] == "shown.dcm"
    assert len(by_key[store.patient_key("a")]) == 5
    assert by_key[store.patient_key("b")] == ("alone.dcm",)  # there is no other of that exposure
    assert found.n == 2
    assert found.images_not_taken == {
        "other-view": 1,
        "other-body-part": 1,
        "quality-control": 1,
        "unknown-view": 1,
    }
    assert found.excluded == {"no-image-taken": 3, "no-image-of-modality": 1}
    assert chosen(store, modalities=("DR",)).n == 2
    only_shown = Takes(intents=("PRESENTATION",))
    assert chosen(store, only_shown, modalities=("DX",)).images_not_taken == {"other-intent": 5}
    assert chosen(store, only_shown, modalities=("CR",)).images_not_taken == {"unknown-intent": 2, "quality-control": 1}
    frozen = select(
        store, modalities=("CR",), age_min_years=0, age_max_years=130, patients=[store.patient_key("c")], takes=CHEST
    )
    assert frozen.images_not_taken == {"other-body-part": 1}


def test_an_earlier_exam_that_is_not_taken_is_no_baseline(store: CohortStore, tmp_path: Path) -> None:
    write(tmp_path / "data/early.dcm", "a", StudyDate="20100317", ViewPosition="LL")
    write(tmp_path / "data/late.dcm", "a", StudyDate="20150317")
    index_folder(store, tmp_path / "data")
    found = chosen(store)
    assert found.images == (("late.dcm",),)
    assert found.age_years.tolist() == pytest.approx([54.0], abs=0.01)


@pytest.mark.parametrize(
    ("elements", "special"),
    [
        ({"BreastImplantPresent": "YES"}, "breast-implant"),
        ({"BreastImplantPresent": "NO"}, ""),
        ({"BreastImplantPresent": ""}, ""),
        ({"BreastImplantPresent": "YES", "ViewPosition": "MLOID"}, "breast-implant implant-displaced"),
        (
            {"BreastImplantPresent": "YES", "ViewCodeSequence": view_code("399368009", modifiers=[code("399011000")])},
            "breast-implant modified-view",
        ),
    ],
)
def test_an_implant_is_among_a_mammograms_tags(tmp_path: Path, elements: dict[str, Any], special: str) -> None:
    found = content(
        tmp_path / "m.dcm", **{"Modality": "MG", "BodyPartExamined": "BREAST", "ViewPosition": "MLO"} | elements
    )
    assert found.special == special
    assert Takes(special=frozenset(["breast-implant"])).why_not(Content(special="breast-implant")) is None
    assert Takes().why_not(Content(special="breast-implant")) == "breast-implant"
