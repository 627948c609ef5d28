"""What a data set's tables tell stands over the file; what a file that is read anew says stands over the store."""

from pathlib import Path
from typing import Any

import pytest

from fedage.client.cohort.ages import Age, AgeSource
from fedage.client.cohort.dicom.facts import DicomFacts, read_facts
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.reasons import Reason, Rejected
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.table_facts import TableFacts
from tests.client.cohort.dicoms import write


def test_what_is_told_stands_over_the_file_and_the_rest_is_the_file_s(tmp_path: Path) -> None:
    ds = write(tmp_path / "a.dcm", "MRN-1", ImageLaterality="R")
    age = Age(33.0, AgeSource.AGE_DAYS)
    found = read_facts(
        tmp_path / "a.dcm", TableFacts(patient_id="p", study_uid="s", age=age, modality="MG", laterality="L")
    )
    assert isinstance(found, DicomFacts)
    assert (found.patient_id, found.study_uid, found.age, found.modality) == ("p", "s", age, "MG")
    assert (found.laterality, found.view, found.sex, found.manufacturer) == ("L", "PA", "F", "Phantom Imaging")
    assert found.sop_uid == ds.SOPInstanceUID
    plain = read_facts(tmp_path / "a.dcm")
    assert isinstance(plain, DicomFacts)
    assert (plain.patient_id, plain.modality, plain.laterality) == ("MRN-1", "CR", "R")


@pytest.mark.filterwarnings("ignore:Invalid value for VR AS")
def test_a_bare_age_is_years_only_where_that_is_told(tmp_path: Path) -> None:
    write(tmp_path / "a.dcm", PatientBirthDate=None, PatientAge="51")
    assert read_facts(tmp_path / "a.dcm") == Rejected(
        Reason.UNREADABLE_AGE, modality="CR", manufacturer="Phantom Imaging"
    )
    found = read_facts(tmp_path / "a.dcm", TableFacts(bare_age_years=True))
    assert isinstance(found, DicomFacts)
    assert found.age == Age(51.5, AgeSource.AGE_YEARS)


class _Table:
    """A data set's table of one image."""

    def __init__(self, digest: str, told: TableFacts | Reason) -> None:
        self.digest, self._told = digest, told

    def facts_for(self, path: str) -> TableFacts | Reason:
        return self._told if path == "a.dcm" else TableFacts()


def ages(store: CohortStore) -> list[float]:
    return sorted(select(store, modalities=(), age_min_years=0, age_max_years=130).age_years.round(1).tolist())


def test_files_are_read_again_when_the_table_has_changed(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path / f"data/{name}.dcm", name)
    with CohortStore.open(tmp_path / "home") as store:
        index_folder(store, tmp_path / "data", table_facts=_Table("-1", TableFacts(age=Age(20.0, AgeSource.DATES))))
        assert ages(store) == [20.0, 60.0]
        index_folder(store, tmp_path / "data", table_facts=_Table("-2", TableFacts(age=Age(30.0, AgeSource.DATES))))
        assert ages(store) == [30.0, 60.0]
        out = index_folder(store, tmp_path / "data", table_facts=_Table("-3", Reason.NOT_IN_TABLE))
        assert (out.rejected, out.patients) == ({"not-in-table": 1}, 1)
        index_folder(store, tmp_path / "data")
        assert ages(store) == [60.0, 60.0]


def test_a_corrected_file_corrects_its_exam_and_its_patient(tmp_path: Path) -> None:
    ids: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "SOPInstanceUID": "1.2.3.4"}
    write(tmp_path / "data/a.dcm", "a", **ids)
    with CohortStore.open(tmp_path / "home") as store:
        index_folder(store, tmp_path / "data")
        assert ages(store) == [60.0]
        write(tmp_path / "data/a.dcm", "a", PatientBirthDate="19710317", PatientSex="M", Manufacturer="Other", **ids)
        index_folder(store, tmp_path / "data")
        found = select(store, modalities=(), age_min_years=0, age_max_years=130, manufacturers=("other",))
        assert (found.age_years.round().tolist(), found.is_male.tolist()) == ([50.0], [1.0])
