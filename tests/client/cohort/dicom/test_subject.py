"""Phantoms and animals are out by their reasons; people whose names or identifiers look like theirs are in."""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.dicom.subject import is_phantom
from fedage.client.cohort.reasons import Reason, Rejected
from tests.client.cohort.dicoms import slice_at, write


def _code(value: str, meaning: str) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return [item]


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"QualityControlSubject": "YES"}, Reason.QUALITY_CONTROL),
        ({"PatientName": "PHANTOM"}, Reason.QUALITY_CONTROL),
        ({"PatientName": "TEST^PHANTOM"}, Reason.QUALITY_CONTROL),
        ({"PatientName": "Daily QA"}, Reason.QUALITY_CONTROL),
        ({"patient": "QC"}, Reason.QUALITY_CONTROL),
        ({"patient": "ACR_20210317"}, Reason.QUALITY_CONTROL),
        ({"patient": "CTDI-32cm"}, Reason.QUALITY_CONTROL),
        ({"PatientName": "Water^Test"}, Reason.QUALITY_CONTROL),
        ({"PatientName": "Prüfkörper", "SpecificCharacterSet": "ISO_IR 100"}, Reason.QUALITY_CONTROL),
        ({**slice_at(0.0), "QualityControlImage": "YES"}, Reason.QUALITY_CONTROL),
        ({"PatientSpeciesDescription": "Canis lupus familiaris"}, Reason.ANIMAL),
        ({"PatientSpeciesDescription": "feline"}, Reason.ANIMAL),
        ({"PatientSpeciesCodeSequence": _code("448771007", "Canis lupus subspecies familiaris")}, Reason.ANIMAL),
        ({"PatientBreedDescription": "Beagle"}, Reason.ANIMAL),
        ({"PatientBreedCodeSequence": _code("132358000", "Sphynx")}, Reason.ANIMAL),
        ({"ResponsiblePersonRole": "OWNER"}, Reason.ANIMAL),
        ({"PatientSexNeutered": "ALTERED"}, Reason.ANIMAL),
        ({"StrainDescription": "C57BL/6"}, Reason.ANIMAL),
        ({"QualityControlSubject": "NO"}, None),
        ({"PatientSpeciesDescription": "Homo sapiens"}, None),
        ({"PatientSpeciesDescription": "HUMAN", "PatientBreedDescription": ""}, None),
        ({"PatientSpeciesCodeSequence": _code("337915000", "Homo sapiens")}, None),
        ({"PatientSpeciesCodeSequence": _code("L-85B00", "")}, None),
        ({"ResponsiblePersonRole": "PARENT", "ResponsiblePerson": "Zwyntarow"}, None),
        ({"PatientName": "Waters^Acrid"}, None),
        ({"patient": "ACR0001"}, None),
        ({"patient": "QA-17-0043"}, None),
        ({"PatientName": "Test^Patient"}, None),
    ],
)
def test_who_is_no_patient_is_out(tmp_path: Path, elements: dict[str, Any], reason: Reason | None) -> None:
    write(tmp_path / "a.dcm", **{"PatientName": "Zwyntarow^Quillemina", **elements})
    found = read_facts(tmp_path / "a.dcm")
    assert isinstance(found, DicomFacts) if reason is None else isinstance(found, Rejected) and found.code is reason


@pytest.mark.parametrize("name", ["FANTOMA^1", "SIEMENS^WATERPHANTOM 5", "KONSTANZPRUEFUNG 2021", "QA^WEEKLY", "NEMA"])
def test_names_of_phantoms(name: str) -> None:
    assert is_phantom(name)


@pytest.mark.parametrize("name", ["", "AGUADO^MARIA", "QUALITY0007", "ACR 4471", "TEST", "SERVICE", "MR 5"])
def test_names_that_may_be_patients(name: str) -> None:
    assert not is_phantom(name)
