"""Mammograms of the other side, of another view or of a special one, and series of slices that are no plain volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.query import Selection, select
from fedage.client.cohort.store.store import CohortStore
from fedage.common.estimators.base import Input
from fedage.common.estimators.takes import Takes
from tests.client.cohort.dicom.contents import MG, content
from tests.client.cohort.dicoms import slice_at, write

SCREENING = Takes(views=("CC", "MLO"), lateralities=("L", "R"))


@pytest.mark.parametrize(
    ("elements", "side", "reason"),
    [
        ({"ImageLaterality": "L", "Laterality": "R"}, "CONTRADICTORY", "contradictory-laterality"),
        ({"ImageLaterality": "L", "SeriesDescription": "R CC"}, "CONTRADICTORY", "contradictory-laterality"),
        ({"Laterality": "R", "ViewPosition": "LCC"}, "CONTRADICTORY", "contradictory-laterality"),
        ({"ImageLaterality": "R", "ProtocolName": "Mamma links"}, "CONTRADICTORY", "contradictory-laterality"),
        ({"ImageLaterality": "L", "SeriesDescription": "CC - RIGHT"}, "CONTRADICTORY", "contradictory-laterality"),
        ({"ImageLaterality": "U"}, "", "unknown-laterality"),
        ({"ImageLaterality": "B"}, "B", "other-laterality"),
        ({"SeriesDescription": "LMLO"}, "L", "contradictory-view"),
        ({"ViewPosition": "R CC"}, "R", None),
        ({"ImageLaterality": "L", "SeriesDescription": "RMLO LMLO RCC LCC"}, "L", None),
        ({"ImageLaterality": "L", "SeriesDescription": "Mammo bilateral CC"}, "L", None),
        ({"ImageLaterality": "R", "SeriesDescription": "R CC"}, "R", None),
        ({"ImageLaterality": "R", "ViewPosition": "MLO", "SeriesDescription": "R ML"}, "R", "contradictory-view"),
        ({"ImageLaterality": "R", "ViewPosition": "CC", "SeriesDescription": "R XCCL"}, "R", "contradictory-view"),
        ({"ImageLaterality": "R", "ViewPosition": "MLO", "ProtocolName": "CC and MLO"}, "R", None),
    ],
)
def test_sides_and_views_of_mammograms(tmp_path: Path, elements: dict[str, Any], side: str, reason: str | None) -> None:
    shown = content(tmp_path / "a.dcm", **{**MG, **elements})
    facts = read_facts(tmp_path / "a.dcm")
    assert isinstance(facts, DicomFacts)
    assert facts.laterality == side
    assert SCREENING.why_not(replace(shown, laterality=facts.laterality)) == reason


@pytest.mark.parametrize(
    ("elements", "special"),
    [
        ({"DistanceSourceToDetector": "650", "DistanceSourceToPatient": "360"}, "magnification"),
        ({"DistanceSourceToDetector": "650", "DistanceSourceToPatient": "630"}, ""),
        ({"SeriesDescription": "L CC Vergrösserung"}, "magnification"),
        ({"SeriesDescription": "CC agrandissement focalisé"}, "magnification spot"),
        ({"SeriesDescription": "Ampliación CC"}, "magnification"),
        ({"SeriesDescription": "L CC ID"}, "implant-displaced"),
        ({"SeriesDescription": "R MLO push back"}, "implant-displaced"),
        ({"SeriesDescription": "L CC Implant"}, "breast-implant"),
        ({"SeriesDescription": "R CC rolled lateral"}, "modified-view"),
        ({"ViewPosition": "CC", "ProtocolName": "Axillary tail"}, "modified-view"),
        ({"SeriesDescription": "R CC wire localization"}, "biopsy"),
        ({"SeriesDescription": "Galactographie"}, "biopsy"),
        ({"StudyDescription": "Stereotactic biopsy left"}, "biopsy"),
        ({"ContrastBolusAgent": "Iohexol"}, "contrast-enhanced"),
        ({"SeriesDescription": "L CC CEDM"}, "contrast-enhanced"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "", "LOW_ENERGY"]}, "contrast-enhanced"),
        ({"SeriesDescription": "R CC DBT slabs"}, "tomosynthesis"),
        ({"SeriesDescription": "ImageChecker CAD"}, "derived"),
        ({"SeriesDescription": "Standard screening, high contrast"}, ""),
        ({"ContrastBolusAgent": "NONE"}, ""),
    ],
)
def test_special_mammograms_of_other_departments(tmp_path: Path, elements: dict[str, Any], special: str) -> None:
    found = content(tmp_path / "a.dcm", **{**MG, **elements, "SpecificCharacterSet": "ISO_IR 192"})
    assert found.special == special


MR: dict[str, Any] = {"Modality": "MR", "SOPClassUID": MRImageStorage, "ViewPosition": None}


@pytest.mark.parametrize(
    ("elements", "view", "special"),
    [
        ({"SeriesDescription": "SAG T1 MPRAGE"}, "T1W", ""),
        ({"SeriesDescription": "3D BRAVO", "ProtocolName": "Brain w/wo"}, "T1W", ""),
        ({"SeriesDescription": "t2_tse_tra"}, "T2W", ""),
        ({"SeriesDescription": "AX T2 FLAIR"}, "FLAIR", ""),
        ({"SeriesDescription": "ep2d_diff_ADC"}, "DWI", "derived"),
        ({"SeriesDescription": "t1_flair"}, "CONTRADICTORY", ""),
        ({"SeriesDescription": "Head", "ProtocolName": "T2* GRE"}, "SWI", ""),
        ({"SeriesDescription": "Head"}, "", ""),
        ({"SeriesDescription": "AAHead_Scout"}, "", "localizer"),
        ({"SeriesDescription": "3-plane loc"}, "", "localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "", "localizer"),
        ({"SeriesDescription": "T1 MPR COR"}, "T1W", "derived"),
        ({"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE", "MIP"]}, "", "derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, "", "not-magnitude"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "ND", "NORM"], "SeriesDescription": "T1"}, "T1W", ""),
        ({"SeriesDescription": "T1 SAG", "ContrastBolusAgent": "Gadovist"}, "T1W", "contrast-enhanced"),
        ({"SeriesDescription": "t1_mprage_KM"}, "T1W", "contrast-enhanced"),
        ({"SeriesDescription": "SAG 3D BRAVO +C"}, "T1W", "contrast-enhanced"),
        ({"SeriesDescription": "T1 sans injection"}, "T1W", ""),
        ({"SeriesDescription": "T1 pre contrast", "ContrastBolusAgent": "NO"}, "T1W", ""),
        (
            {"Modality": "CT", "SeriesDescription": "Thorax", "ContrastBolusAgent": "Ultravist"},
            "",
            "contrast-enhanced",
        ),
        ({"Modality": "CT", "ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, "", "derived"),
    ],
)
def test_what_slices_show(tmp_path: Path, elements: dict[str, Any], view: str, special: str) -> None:
    found = content(tmp_path / "a.dcm", **{**MR, **elements})
    assert (found.view, found.special) == (view, special)


def brains(store: CohortStore) -> Selection:
    takes = Takes(views=("T1W",), may_be_unknown=frozenset(["view"]))
    wanted = (Input(name="volume", rank=3, modalities=("MR",), takes=takes),)
    return select(store, modalities=("MR",), age_min_years=0, age_max_years=130, inputs=wanted)


def test_a_volume_is_chosen_among_the_series_of_an_exam(tmp_path: Path) -> None:
    """A series is what any of its slices is; of several kinds it is none."""
    data = tmp_path / "data"
    kinds = {
        "1.1": [{"SeriesDescription": "localizer"}] * 3,
        "1.2": [{"SeriesDescription": "T1 MPRAGE"}] * 4,
        "1.3": [{"SeriesDescription": "T2 TSE"}] * 3,
        "1.4": [{"SeriesDescription": "T1 SE"}, {"SeriesDescription": "T1 SE", "ContrastBolusAgent": "Dotarem"}],
        "1.5": [{"SeriesDescription": "T1 SE"}, {"SeriesDescription": "T2 SE"}],
    }
    for series, slices in kinds.items():
        for depth, elements in enumerate(slices):
            write(data / f"{series}-{depth}.dcm", "p1", **slice_at(2.0 * depth, series=series), **elements)
    single = {"SOPClassUID": EnhancedMRImageStorage, "NumberOfFrames": 1, "SeriesDescription": "T1"}
    write(data / "e.dcm", "p2", **{**slice_at(0, series="1.7", study="1.7"), **single})
    store = CohortStore.open(tmp_path / "home")
    assert index_folder(store, data).rejected == {}
    found = brains(store)
    (images,) = found.images
    assert [len(store.slices(image)) for image in images] == [4]
    assert found.images_not_taken == {
        "localizer": 1,
        "other-view": 1,
        "contrast-enhanced": 1,
        "contradictory-view": 1,
        "not-a-volume": 1,
    }
