"""What tags of a radiograph say, as tests write them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation

from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.table_facts import NO_FACTS, TableFacts
from fedage.common.estimators import estimator_class
from fedage.common.estimators.takes import Content
from tests.client.cohort.dicoms import write

CHEST = estimator_class("chest-ca").inputs[0].takes


def code(value: str, meaning: str = "", *, scheme: str = "SCT") -> Dataset:
    ds = Dataset()
    ds.CodeValue, ds.CodingSchemeDesignator, ds.CodeMeaning = value, scheme, meaning
    return ds


def view_code(value: str, meaning: str = "", *, modifiers: Sequence[Dataset] = ()) -> list[Dataset]:
    ds = code(value, meaning)
    ds.ViewModifierCodeSequence = list(modifiers)
    return [ds]


PA, LEFT_LATERAL = view_code("272479007", "postero-anterior"), view_code("399173006", "left lateral")


def content(path: Path, told: TableFacts = NO_FACTS, **elements: Any) -> Content:
    write(path, **elements)
    found = read_facts(path, told)
    assert isinstance(found, DicomFacts), found
    return Content(view=found.view, body_part=found.body_part, intent=found.intent, special=found.special)


MG: dict[str, Any] = {
    "Modality": "MG",
    "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
    "ViewPosition": "CC",
    "BodyPartExamined": "BREAST",
}
