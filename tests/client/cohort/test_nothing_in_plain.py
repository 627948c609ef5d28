"""Bytes of a site's whole home after indexing DICOM, a BIDS data set and tables: nobody is named, dated or located."""

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedage.client.cohort.indexing.bids import index_bids
from fedage.client.cohort.indexing.index import index_folder
from fedage.client.cohort.indexing.rejects_page import write_rejects_page
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import index_table
from fedage.client.site.mapping import TableSource
from tests.client.cohort.dicoms import BIRTH_DATE, NAME, slice_at, write, write_without_pixels

ID = "MRN-7714423"
DATES = (BIRTH_DATE, "1961-03-17", "20210317", "2021-03-17")


def assert_not_in(home: Path, secrets: Iterable[str], key: bytes) -> None:
    files = [path for path in sorted(home.rglob("*")) if path.is_file()]
    assert home / "cohort.db" in files
    for file in files:
        content = file.read_bytes()
        for secret in secrets:
            for encoding in ("utf-8", "utf-16-le"):
                assert secret.encode(encoding) not in content, (file.name, secret)
        if file.name != "store.key":
            for form in (key, key.hex().encode(), key.hex().upper().encode()):
                assert form not in content, f"the key is in {file.name}"


def key_of(home: Path) -> bytes:
    return bytes.fromhex((home / "store.key").read_text())


def dicom_tree(data: Path) -> set[str]:
    """Images, a series, rejected files, an archive; all that must not be found."""
    datasets = [
        write(data / "Zwyntarow" / "canary-file.dcm", ID),
        write(data / "canary-no-age.dcm", ID, PatientBirthDate=None),
        write(data / "canary-old.dcm", ID, PatientBirthDate="17590101"),
        *(write(data / "canary-series" / f"canary-{z}", ID, **slice_at(z, series="1.2.826.9.7")) for z in (0, 3, 6)),
        *(write(data / "canary-hole" / f"canary-{z}", ID, **slice_at(z, series="1.2.826.9.8")) for z in (0, 3, 9)),
    ]
    write_without_pixels(data / "canary-empty.dcm", ID)
    write(data / "canary-packed", ID)
    with zipfile.ZipFile(data / "canary-archive.zip", "w") as archive:
        archive.write(data / "canary-packed", "canary-member")
    (data / "canary-packed").unlink()
    uids: set[Any] = {"1.2.826.9.7", "1.2.826.9.8"}
    for ds in datasets:
        uids |= {ds.SOPInstanceUID, ds.StudyInstanceUID}
    return {ID, NAME, "Zwyntarow", "canary", "17590101", *DATES, *map(str, uids)}


@pytest.mark.parametrize("while_open", [True, False])
def test_of_a_dicom_tree(tmp_path: Path, while_open: bool) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    secrets = dicom_tree(data) | {str(data)}
    outcomes = tmp_path / "canary-outcomes.csv"
    outcomes.write_text(f"patient_id,event,doctor,seen\n{ID},1,Zwyntarow,2021-03-17\n")
    with CohortStore.open(home) as store:
        report = index_folder(store, data, outcomes_csv=outcomes)
        assert (report.volumes, report.images) == (1, 3)
        assert set(report.rejected) == {"missing-slices", "no-age", "unreliable-dates", "no-pixels"}
        write_rejects_page(store, home)
        index_folder(store, data)
        (data / "canary-series" / "canary-3").unlink()
        index_folder(store, data)
        if while_open:
            assert (home / "cohort.db-wal").stat().st_size > 0
            assert_not_in(home, secrets, key_of(home))
    assert_not_in(home, secrets, key_of(home))
    for secret in secrets:
        assert secret not in repr(report)


def test_of_a_bids_data_set_and_a_table(tmp_path: Path) -> None:
    home, data = tmp_path / "home", tmp_path / "data"
    folder = data / "sub-Zwyntarow" / "ses-canary" / "anat"
    folder.mkdir(parents=True)
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / "sub-Zwyntarow_ses-canary_T1w.nii.gz")
    (data / "participants.tsv").write_text("participant_id\tage\tsex\tname\nsub-Zwyntarow\t60\tF\tQuillemina\n")
    (folder.parent.parent / "sub-Zwyntarow_sessions.tsv").write_text(
        "session_id\tacq_time\nses-canary\t2021-03-17T10:00:00\n"
    )
    table = tmp_path / "canary-table.csv"
    table.write_text(f"mrn,age,born,doctor\n{ID},60,{BIRTH_DATE},Quillemina\nx2,50,19710317,Quillemina\n")
    with CohortStore.open(home) as store:
        assert index_bids(store, data).images == 1
        index_table(store, TableSource(path=str(table), id="mrn", age="age", leave_out=("born",)))
        write_rejects_page(store, home)
    assert_not_in(home, {ID, "Zwyntarow", "Quillemina", "canary", *DATES}, key_of(home))
