"""Images under one PatientID that are not one person's, and one study under several."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fedage.client.cohort.dicom.placeholder_ids import is_placeholder
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.store.one_person import SEVERAL_PEOPLE, SEVERAL_SEXES, SHARED_STUDY
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.statements import count_not_one_person
from fedage.client.cohort.store.store import CohortStore
from tests.client.cohort.dicoms import slice_at, write


def _index(store: CohortStore, folder: Path, images: list[dict[str, Any]]) -> None:
    for number, about in enumerate(images):
        write(folder / f"{number}.dcm", **{"patient": "4711-C", **about})
    index_folder(store, folder)


def _of_age(age: str, **about: Any) -> dict[str, Any]:
    return {"PatientAge": age, "PatientBirthDate": "", **about}


STUDY, OTHER_STUDY = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"


@pytest.mark.parametrize(
    ("images", "reasons"),
    [
        pytest.param([{"PatientSex": "M"}, {"PatientSex": "F"}], [SEVERAL_SEXES], id="sexes"),
        pytest.param(
            [{"PatientSex": "F"}, {"PatientSex": ""}, {"PatientSex": "M"}], [SEVERAL_SEXES], id="one says nothing"
        ),
        pytest.param(
            [{"PatientSex": "M", "StudyInstanceUID": STUDY}, {"PatientSex": "F", "StudyInstanceUID": STUDY}],
            [SEVERAL_SEXES],
            id="sexes of one study",
        ),
        pytest.param([{"PatientSex": "F"}, {"PatientSex": "O"}, {"PatientSex": ""}], [], id="other or unknown"),
        pytest.param([_of_age("045Y"), _of_age("061Y")], [SEVERAL_PEOPLE], id="ages of one day"),
        pytest.param([_of_age("045Y"), _of_age("046Y", StudyDate="20220401")], [], id="a year older"),
        pytest.param(
            [_of_age("045Y"), _of_age("061Y", LongitudinalTemporalInformationModified="MODIFIED")],
            [],
            id="days that may have been changed",
        ),
        pytest.param([_of_age("012Y", StudyDate=""), _of_age("061Y", StudyDate="")], [SEVERAL_PEOPLE], id="no days"),
        pytest.param([_of_age("045Y", StudyDate=""), _of_age("061Y", StudyDate="")], [], id="no days, 16 years"),
        pytest.param([_of_age("089Y", StudyDate="20100101"), _of_age("089Y")], [], id="an age that only says at least"),
        pytest.param(
            [{"StudyInstanceUID": STUDY}, {"StudyInstanceUID": STUDY, "PatientBirthDate": "19620317"}],
            [SEVERAL_PEOPLE],
            id="one study, births a year apart",
        ),
        pytest.param(
            [{"StudyInstanceUID": STUDY}, _of_age("052Y", StudyInstanceUID=STUDY)],
            [SEVERAL_PEOPLE],
            id="one study, another age",
        ),
        pytest.param(
            [{"StudyInstanceUID": STUDY}, {"StudyInstanceUID": STUDY, "patient": "4712-C"}],
            [SHARED_STUDY, SHARED_STUDY],
            id="one study, two identifiers",
        ),
        pytest.param(
            [
                {"StudyInstanceUID": STUDY},
                {"StudyInstanceUID": STUDY, "patient": "4712-C", "PatientBirthDate": "19400101"},
                {"StudyInstanceUID": OTHER_STUDY, "patient": "4713-C"},
            ],
            [SHARED_STUDY, SHARED_STUDY],
            id="one study, two people, and a third",
        ),
        pytest.param([{"StudyInstanceUID": STUDY}, {"StudyInstanceUID": STUDY}], [], id="two views of one study"),
        pytest.param(
            [_of_age("045Y", patient="ANONYMOUS"), _of_age("045Y", patient="ANONYMOUS")],
            [SEVERAL_PEOPLE],
            id="a placeholder",
        ),
        pytest.param(
            [{"patient": "00000"}, _of_age("060Y", patient="00000")], [SEVERAL_PEOPLE], id="a placeholder, one birth"
        ),
        pytest.param([{"patient": "TEST"}, {"patient": "TEST"}], [], id="a placeholder, births agree"),
        pytest.param(
            [
                _of_age("045Y", patient="dummy", StudyInstanceUID=STUDY),
                _of_age("045Y", patient="dummy", StudyInstanceUID=STUDY),
            ],
            [],
            id="a placeholder, one study",
        ),
    ],
)
def test_what_cannot_be_one_person_is_out_by_its_reason(
    store: CohortStore, tmp_path: Path, images: list[dict[str, Any]], reasons: list[str]
) -> None:
    _index(store, tmp_path / "data", images)
    assert count_not_one_person(store) == Counter(reasons)
    found = select(store, modalities=("CR",), age_min_years=0, age_max_years=130)
    assert dict(found.excluded) == Counter(reasons)
    assert found.n == len({about.get("patient", "4711-C") for about in images}) - len(reasons)


def test_a_mended_file_brings_its_patient_back(store: CohortStore, tmp_path: Path) -> None:
    images = [{"StudyInstanceUID": STUDY}, {"StudyInstanceUID": STUDY, "PatientSex": "M"}]
    _index(store, tmp_path / "data", images)
    assert count_not_one_person(store) == {SEVERAL_SEXES: 1}
    write(tmp_path / "data/1.dcm", "4711-C", StudyInstanceUID=STUDY)
    index_folder(store, tmp_path / "data")
    assert count_not_one_person(store) == {}


@pytest.mark.parametrize(
    "identifier",
    [
        *("ANONYMOUS", "anon", "Anonymous^Patient", "UNKNOWN", "Unbekannt", "inconnu", "NONE", "N/A", "XXXX", "X", "0"),
        *("00000", "TEST", "Dummy", "---", "???", "999999", "12345678", "No Name", "anonymisé", "Неизвестно", "不明"),
        *("test_000", "匿名", "DESCONOCIDO"),
    ],
)
def test_identifiers_that_name_nobody(identifier: str) -> None:
    assert is_placeholder(identifier)


@pytest.mark.parametrize(
    "identifier",
    ["1", "7", "11", "222", "10", "1000", "ANON0001", "TEST-17", "MRN-7714423", "Anders", "4711-C", "UNKNOWN-3", "P0"],
)
def test_identifiers_that_may_be_somebodys(identifier: str) -> None:
    assert not is_placeholder(identifier)


@pytest.mark.parametrize("last", [{"PatientSex": "M"}, {"PatientBirthDate": "19400101"}, {"PatientAge": "060Y"}])
def test_a_series_of_several_people_is_out(store: CohortStore, tmp_path: Path, last: dict[str, Any]) -> None:
    for number in range(3):
        about = last if number == 2 else {}
        write(tmp_path / f"data/{number}.dcm", "4711-C", **{**slice_at(3.0 * number), **about})
    report = index_folder(store, tmp_path / "data")
    agrees = "PatientAge" in last  # 60 by the dates
    assert (report.images, report.rejected) == ((1, {}) if agrees else (0, {SEVERAL_PEOPLE: 3}))
