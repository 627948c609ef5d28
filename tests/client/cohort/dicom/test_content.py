"""What a radiograph shows, wherever its header says so; and which images an estimator takes."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalMammographyXRayImageStorageForProcessing,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from fedage.client.cohort.dicom.content import body_part_from_text, view_from_text
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.table_facts import TableFacts
from fedage.common.estimators.takes import Content
from tests.client.cohort.dicom.contents import CHEST, LEFT_LATERAL, PA, code, content, view_code
from tests.client.cohort.dicoms import write


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("undefined", [False, True])
def test_codes_are_read_in_every_encoding(tmp_path: Path, syntax: UID, undefined: bool) -> None:
    views = view_code("399368009", "x", modifiers=[code("R-102D7"), code("399209000")])
    regions = [code("76752008")]
    about = Dataset()
    about.ViewCodeSequence, about.AnatomicRegionSequence = views, regions
    if undefined:
        for element in (about["ViewCodeSequence"], about["AnatomicRegionSequence"]):
            element.is_undefined_length = True
        for item in (*views, *regions):
            item.is_undefined_length_sequence_item = True
        views[0]["ViewModifierCodeSequence"].is_undefined_length = True
    found = content(tmp_path / "a.dcm", syntax=syntax, add=about, ViewPosition=None, Modality="MG")
    assert found == Content(view="MLO", body_part="BREAST", special="implant-displaced spot")


@pytest.mark.parametrize(
    ("elements", "view"),
    [
        ({}, "PA"),
        ({"ViewPosition": None}, ""),
        ({"ViewPosition": "UNKNOWN"}, ""),
        ({"ViewPosition": None, "ViewCodeSequence": PA}, "PA"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-10206", "anything")}, "AP"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-102CD", "")}, "LATERAL"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("local-7", "Postero-Anterior")}, "PA"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("R-10220", "left anterior oblique")}, "LEFT ANTERIOR OB"),
        ({"ViewPosition": None, "ViewCodeSequence": [*PA, *LEFT_LATERAL]}, "CONTRADICTORY"),
        ({"ViewPosition": "PA", "ViewCodeSequence": LEFT_LATERAL}, "CONTRADICTORY"),
        ({"ViewPosition": "PA", "ViewCodeSequence": view_code("399033003", "frontal")}, "PA"),
        ({"ViewPosition": "LATERAL", "ViewCodeSequence": LEFT_LATERAL}, "LL"),
        ({"ViewPosition": "LL", "ViewCodeSequence": view_code("399067008", "lateral")}, "LL"),
        ({"ViewPosition": "PA", "ViewCodeSequence": []}, "PA"),
    ],
)
def test_views(tmp_path: Path, elements: dict[str, Any], view: str) -> None:
    assert content(tmp_path / "a.dcm", **elements).view == view


@pytest.mark.parametrize(
    ("text", "view"),
    [
        ("pa", "PA"),
        ("AP SUPINE", "AP"),
        ("CHEST PA", "PA"),
        ("Postero-Anterior", "PA"),
        ("LAT", "LATERAL"),
        ("L LAT", "L LAT"),
        ("PA AND LATERAL", "CONTRADICTORY"),
        ("PA/AP", "CONTRADICTORY"),
        ("AP AXIAL", "AP AXIAL"),
        ("PA OBLIQUE", "PA OBLIQUE"),
        ("APICAL", "APICAL"),
        ("mlo", "MLO"),
        ("RCC", "CC"),
        ("L MLO", "MLO"),
        ("left_xccl", "XCCL"),
        ("RM", "RM"),
        ("n/a", ""),
    ],
)
def test_views_as_people_write_them(text: str, view: str) -> None:
    assert view_from_text(text) == view


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("Chest", "CHEST"),
        ("THORAX", "CHEST"),
        ("CHEST PA", "CHEST"),
        ("PORT CHEST", "CHEST"),
        ("LUNG", "CHEST"),
        ("CHESTABDOMEN", "CHESTABDOMEN"),
        ("CHEST_AND_HAND", "CHEST_AND_HAND"),
        ("TSPINE", "TSPINE"),
        ("RIB", "RIB"),
        ("HAND", "HAND"),
        ("BREAST", "BREAST"),
        ("CHEST PHANTOM", "PHANTOM"),
        ("UNKNOWN", ""),
        ("", ""),
    ],
)
def test_body_parts_as_people_write_them(text: str, part: str) -> None:
    assert body_part_from_text(text) == part


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({}, None),
        ({"ViewPosition": "AP"}, None),
        ({"Modality": "DX"}, None),
        ({"Modality": "DR"}, None),
        ({"ViewPosition": None, "ViewCodeSequence": PA}, None),
        ({"BodyPartExamined": "CHEST"}, None),
        ({"BodyPartExamined": "THORAX", "AnatomicRegionSequence": [code("43799004")]}, None),
        ({"BodyPartExamined": None, "AnatomicRegionSequence": [code("T-28000", "Lung", scheme="SRT")]}, None),
        ({"QualityControlImage": "NO"}, None),
        ({"ViewPosition": "LL"}, "other-view"),
        ({"ViewPosition": None, "ViewCodeSequence": LEFT_LATERAL}, "other-view"),
        ({"ViewPosition": None, "ViewCodeSequence": view_code("399236003", "right oblique")}, "other-view"),
        ({"ViewPosition": "LLD"}, "other-view"),
        ({"ViewPosition": None}, "unknown-view"),
        ({"ViewCodeSequence": LEFT_LATERAL}, "contradictory-view"),
        ({"BodyPartExamined": "HAND"}, "other-body-part"),
        ({"BodyPartExamined": "KNEE"}, "other-body-part"),
        ({"BodyPartExamined": "BREAST"}, "other-body-part"),
        ({"BodyPartExamined": "ABDOMEN"}, "other-body-part"),
        ({"BodyPartExamined": None, "AnatomicRegionSequence": [code("85562004", "Hand")]}, "other-body-part"),
        ({"BodyPartExamined": None, "AnatomicRegionSequence": [code("T-D9200", "", scheme="SRT")]}, "other-body-part"),
        (
            {"BodyPartExamined": "CHEST", "AnatomicRegionSequence": [code("72696002", "Knee")]},
            "contradictory-body-part",
        ),
        ({"QualityControlImage": "YES"}, "quality-control"),
        ({"QualityControlImage": "BOTH"}, "quality-control"),
        ({"BodyPartExamined": "PHANTOM"}, "quality-control"),
        ({"BodyPartExamined": None, "AnatomicRegionSequence": [code("706342009", "Phantom")]}, "quality-control"),
        ({"ContainerIdentifier": "Zwyntarow"}, "specimen"),
        # What only descriptions say, and whose view and part are left to the scanner's default.
        ({"SeriesDescription": "Chest PA and lateral"}, None),
        ({"SeriesDescription": "Thorax p.a. und seitlich"}, None),
        ({"SeriesDescription": "W034 Chest Lat"}, "contradictory-view"),
        ({"AcquisitionDeviceProcessingDescription": "THORAX SEITL."}, "contradictory-view"),
        ({"ProtocolName": "chest lateral", "ViewPosition": None}, "other-view"),
        ({"BodyPartExamined": "CHEST LAT"}, "contradictory-view"),
        ({"BodyPartExamined": "THORAX LATERAL", "ViewPosition": None}, "other-view"),
        ({"BodyPartExamined": "CHEST PA LAT"}, None),
        ({"SeriesDescription": "Torax perfil"}, "contradictory-view"),
        ({"SeriesDescription": "RX TORACE L.L.", "ViewPosition": None}, "other-view"),
        ({"SeriesDescription": "LEFT LATERAL DECUBITUS", "ViewPosition": "AP"}, "contradictory-view"),
        ({"PatientOrientation": ["P", "F"]}, "contradictory-view"),
        ({"PatientOrientation": ["A", "F"], "ViewPosition": None}, "other-view"),
        # PatientOrientation may be a default: a view that a second place says counts more.
        ({"PatientOrientation": ["P", "F"], "ViewCodeSequence": PA}, None),
        ({"PatientOrientation": ["A", "F"], "SeriesDescription": "Chest PA"}, None),
        ({"PatientOrientation": ["P", "F"], "ViewPosition": "AP", "ProtocolName": "Thorax a.p. im Bett"}, None),
        ({"PatientOrientation": ["P", "F"], "ViewCodeSequence": LEFT_LATERAL}, "contradictory-view"),
        ({"PatientOrientation": ["P", "F"], "SeriesDescription": "Chest PA and lateral"}, "contradictory-view"),
        ({"PatientOrientation": ["P", "F"], "SeriesDescription": "Chest lat"}, "contradictory-view"),
        ({"PatientOrientation": ["P", "F"], "ViewPosition": None, "SeriesDescription": "Chest PA"}, "other-view"),
        ({"PatientOrientation": ["P", "F"], "StudyDescription": "Chest PA"}, "contradictory-view"),
        ({"PatientOrientation": ["L", "F"]}, None),
        ({"PatientOrientation": ["", ""]}, None),
        # Turned by 90°, still from the side; a view or nonsense in its place says nothing.
        ({"PatientOrientation": ["F", "A"]}, "contradictory-view"),
        ({"PatientOrientation": ["H", "PL"]}, "contradictory-view"),
        ({"PatientOrientation": ["PA", "F"]}, None),
        ({"PatientOrientation": ["AP", "H"]}, None),
        ({"PatientOrientation": ["POST", "FOOT"]}, None),
        ({"PatientOrientation": ["P"]}, None),
        ({"PatientOrientation": ["LP", "F"]}, None),
        ({"SeriesDescription": "Left hand PA"}, "other-body-part"),
        ({"ProtocolName": "KNEE AP"}, "other-body-part"),
        ({"AcquisitionDeviceProcessingDescription": "L-SPINE"}, "other-body-part"),
        ({"StudyDescription": "XR Shoulder 2 views"}, "other-body-part"),
        ({"StudyDescription": "XR Shoulder", "SeriesDescription": "CHEST PA"}, None),
        ({"StudyDescription": "XR Chest and Hand"}, None),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "XR Hand"}, "contradictory-body-part"),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "KNEE", "SeriesDescription": "Thorax PA"}, None),
        ({"BodyPartExamined": "CHEST", "StudyDescription": "Polytrauma"}, None),
        # Views that are neither frontal nor lateral, parts in more languages, and the study's description.
        ({"ProtocolName": "CHEST OBLIQUE"}, "contradictory-view"),
        ({"SeriesDescription": "Chest AP lordotic"}, "contradictory-view"),
        ({"SeriesDescription": "CXR R DECUB", "ViewPosition": "AP"}, "contradictory-view"),
        ({"SeriesDescription": "Thorax schräg", "ViewPosition": None}, "other-view"),
        ({"ProtocolName": "THORAX RAO"}, "contradictory-view"),
        ({"SeriesDescription": "Lungenspitzen Lindblom", "ViewPosition": "AP"}, "contradictory-view"),
        ({"SeriesDescription": "Tórax AP en decúbito lateral", "ViewPosition": "AP"}, "contradictory-view"),
        ({"SeriesDescription": "Tórax AP decúbito supino", "ViewPosition": "AP"}, None),
        ({"SeriesDescription": "Thorax de face, décubitus dorsal", "ViewPosition": "AP"}, None),
        ({"SeriesDescription": "Chest PA, LAT, OBL"}, None),
        ({"ProtocolName": "CHEST PA & OBLIQUES"}, None),
        ({"ProtocolName": "Thorax Seite"}, "contradictory-view"),
        ({"ProtocolName": "Thorax Seitenaufnahme", "ViewPosition": None}, "other-view"),
        ({"ViewPosition": "PA SEITL"}, "contradictory-view"),
        ({"ViewPosition": "AP LINDBLOM"}, "other-view"),
        ({"SeriesDescription": "Schädel AP"}, "other-body-part"),
        ({"SeriesDescription": "MÃO PA", "SpecificCharacterSet": "ISO_IR 100"}, "other-body-part"),
        ({"SeriesDescription": "Épaule face", "BodyPartExamined": "CHEST"}, "contradictory-body-part"),
        ({"SeriesDescription": "Knäled", "ProtocolName": "KNÄ AP"}, "other-body-part"),
        ({"SeriesDescription": "Снимок черепа", "SpecificCharacterSet": "ISO_IR 144"}, "other-body-part"),
        ({"SeriesDescription": "胸部側面", "SpecificCharacterSet": "ISO_IR 192"}, "contradictory-view"),
        ({"SeriesDescription": "胸部正面PA 手術後", "SpecificCharacterSet": "ISO_IR 192"}, None),
        ({"ProtocolName": "BABYGRAM"}, "other-body-part"),
        ({"BodyPartExamined": "CHEST", "ProtocolName": "Babygram chest"}, "contradictory-body-part"),
        ({"StudyDescription": "CHEST LATERAL"}, "contradictory-view"),
        ({"StudyDescription": "CHEST LATERAL", "SeriesDescription": "CHEST PA"}, None),
        ({"StudyDescription": "CHEST PA AND LATERAL"}, None),
        ({"StudyDescription": "Chest decubitus", "ViewPosition": None}, "other-view"),
        (
            {"ViewCodeSequence": view_code("272479007", modifiers=[code("111069", "Crosstable", scheme="DCM")])},
            "modified-view",
        ),
        ({"ViewCodeSequence": view_code("272479007", modifiers=[code("399308006", "Lindblom")])}, "modified-view"),
        ({"ViewCodeSequence": view_code("272479007", modifiers=[code("399006002")])}, "modified-view"),
        ({"ViewCodeSequence": view_code("272479007", modifiers=[code("1", "Full inspiration")])}, None),
        ({"BodyPartExamined": "CHEST", "SeriesDescription": "Hand PA"}, "contradictory-body-part"),
        ({"BodyPartExamined": "CHEST INFANT"}, None),
        ({"SeriesDescription": "Flat field calibration"}, "quality-control"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "", "PHANTOM"]}, "quality-control"),
        ({"ProtocolName": "TG18-QC test pattern"}, "quality-control"),
        ({"SeriesDescription": "Chest PA bone suppressed"}, "subtracted"),
        ({"SeriesDescription": "Esophagus PA"}, "contrast-examination"),
        ({"SeriesDescription": "Esophagus PA, LAT"}, "contrast-examination"),
        ({"ProtocolName": "Barium swallow AP"}, "contrast-examination"),
        ({"StudyDescription": "Fluoro", "SeriesDescription": "PA"}, "contrast-examination"),
        ({"SeriesDescription": "Chest fluoroscopy PA"}, "contrast-examination"),
        ({"SeriesDescription": "Ösophagus-Breischluck p.a."}, "contrast-examination"),
        ({"SeriesDescription": "Esófago frontal"}, "contrast-examination"),
        ({"SeriesDescription": "Thorax PA", "StudyDescription": "Thorax; Durchleuchtung"}, None),
        ({"SeriesDescription": "Chest PA, swallowed coin"}, None),
        ({"SeriesDescription": "Dual energy soft tissue"}, "subtracted"),
    ],
)
def test_what_chest_ca_takes(tmp_path: Path, elements: dict[str, Any], reason: str | None) -> None:
    present = {key: value for key, value in elements.items() if value is not None or key == "ViewPosition"}
    if not str(present).isascii():
        present.setdefault("SpecificCharacterSet", "ISO_IR 192")
    assert CHEST.why_not(content(tmp_path / "a.dcm", **present)) == reason


@pytest.mark.parametrize(
    ("charset", "raw"),
    [
        ("", "Schädel AP".encode()),
        ("", "Schädel AP".encode("latin-1")),
        ("ISO_IR 192", "Schädel AP".encode("latin-1")),  # not what it says
        ("ISO_IR 101", "Kolano, ręka".encode("iso8859-2")),
        ("\\ISO 2022 IR 87", "膝".encode("iso2022_jp")),
    ],
)
def test_parts_are_read_in_the_file_s_characters_or_in_usual_ones(tmp_path: Path, charset: str, raw: bytes) -> None:
    write(tmp_path / "a.dcm", SeriesDescription="X" * (len(raw) + len(raw) % 2), SpecificCharacterSet=charset.upper())
    data = (tmp_path / "a.dcm").read_bytes()
    assert data.count(b"X" * len(raw)) == 1
    (tmp_path / "a.dcm").write_bytes(data.replace(b"X" * (len(raw) + len(raw) % 2), raw.ljust(len(raw) + len(raw) % 2)))
    found = read_facts(tmp_path / "a.dcm")
    assert isinstance(found, DicomFacts)
    assert CHEST.why_not(Content(view=found.view, body_part=found.body_part)) == "other-body-part"


@pytest.mark.parametrize(
    ("elements", "intent"),
    [
        ({"PresentationIntentType": "FOR PROCESSING"}, "PROCESSING"),
        ({"PresentationIntentType": "FOR PRESENTATION"}, "PRESENTATION"),
        ({"SOPClassUID": DigitalXRayImageStorageForProcessing}, "PROCESSING"),
        ({"SOPClassUID": DigitalXRayImageStorageForPresentation}, "PRESENTATION"),
        ({"SOPClassUID": DigitalMammographyXRayImageStorageForProcessing}, "PROCESSING"),
        ({}, ""),
    ],
)
def test_intents(tmp_path: Path, elements: dict[str, Any], intent: str) -> None:
    assert content(tmp_path / "a.dcm", **elements).intent == intent


def test_a_table_of_the_data_set_stands_over_the_file(tmp_path: Path) -> None:
    assert content(tmp_path / "a.dcm", TableFacts(view="lateral"), ViewCodeSequence=PA).view == "LATERAL"


def test_a_sequence_that_breaks_the_rules_says_nothing(tmp_path: Path) -> None:
    """Cut inside the sequence, its length is a lie; the image stays in and its view unknown."""
    path = tmp_path / "a.dcm"
    write(path, ViewPosition=None, ViewCodeSequence=view_code("272479007", "postero-anterior"))
    raw = path.read_bytes()
    at = raw.index(b"\xfe\xff\x00\xe0")
    path.write_bytes(raw[: at + 4] + b"\x08\x00\x00\x00" + raw[at + 8 :])
    found = read_facts(path)
    assert isinstance(found, DicomFacts)
    assert found.view == ""


def test_deflated_files_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    found = content(path, syntax=DeflatedExplicitVRLittleEndian, ViewPosition=None, ViewCodeSequence=LEFT_LATERAL)
    assert found.view == "LL"
