"""What a BIDS data set must not be taken for: another unit, another participant's row, another participant's volume."""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedage.client.cohort.bids.participants import read_rows
from fedage.client.cohort.indexing.bids import index_bids
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store.store import CohortStore
from fedage.common.errors import FedAgeError
from tests.client.cohort.bids.test_bids import data_set, t1w
from tests.client.cohort.bids.test_sessions import ages, tree

TWO = "participant_id\tage\nsub-a\t40.5\nsub-b\t50.5\n"


@pytest.mark.parametrize(
    "about",
    [
        b'{"age": {"Units": "months",}}',
        '{"age": {"Units": "months"}, "site": "Köln"}'.encode("latin-1"),
        b'["age", "months"]',
        b"",
        b"[" * 100_000,
        b'{"age": {"Units": "months"}, "x": "' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_a_description_that_cannot_be_read_is_not_taken_for_none(tmp_path: Path, about: bytes) -> None:
    root = tree(tmp_path, {"a": [""]}, {"participants.tsv": TWO})
    (root / "participants.json").write_bytes(about)
    with pytest.raises(FedAgeError, match=r"participants\.json is no JSON object in UTF-8 .* unit of ages; correct it"):
        ages(root)
    (root / "participants.json").unlink()
    (root / "sessions.json").write_bytes(about)
    with pytest.raises(FedAgeError, match=r"sessions\.json is no JSON object"):
        ages(root)


@pytest.mark.parametrize(
    "column",
    [
        {"Units": "months"},
        {"units": "Months"},
        {"UNITS": "mo"},
        {"Unit": "month"},
        {"Units": "months", "Description": "age in years"},
    ],
)
def test_a_unit_is_found_whatever_the_capitals_of_its_key(tmp_path: Path, column: object) -> None:
    files = {"participants.tsv": "participant_id\tage\nsub-a\t30.6\n", "participants.json": json.dumps({"age": column})}
    assert ages(tree(tmp_path, {"a": [""]}, files)) == {("a", ""): 2.55}


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"Description": "age in months"}, 'mentions months .* add "Units": "month"'),
        ("Age at scan, weeks", 'mentions weeks .* add "Units": "week"'),
        ({"description": "Gestational age (days)", "Units": ""}, "not from birth: give the age since birth"),
        ({"Description": "Postmenstrual age at scan", "Units": "weeks"}, "counts from conception or the last menstr"),
        ({"LongName": "PMA", "Units": "weeks"}, "counts from conception"),
        ({"Units": "weeks post-conceptional"}, "counts from conception"),
        ({"description": "Days of age", "Units": ""}, 'mentions days .* add "Units": "day"'),
        ({"Units": ["months"]}, "is in .* allowed are years, months"),
        ({"Description": "age in years, at most 3 months before the scan"}, ""),
        ({"Description": "may be rounded"}, ""),
    ],
)
def test_a_unit_that_only_a_description_tells_is_asked_for(tmp_path: Path, column: object, says: str) -> None:
    root = tree(tmp_path, {"a": [""]}, {"participants.tsv": TWO, "participants.json": json.dumps({"age": column})})
    if says:
        with pytest.raises(FedAgeError, match=says):
            ages(root)
    else:
        assert ages(root) == {("a", ""): 40.5}


def test_a_participants_own_description_counts_for_its_sessions(tmp_path: Path) -> None:
    own = "session_id\tage\n1\t30.6\n"
    files = {f"sub-{name}/sub-{name}_sessions.tsv": own for name in "abcd"} | {
        "participants.tsv": TWO + "sub-c\t60.5\nsub-d\t70.5\n",
        "sub-b/sub-b_sessions.json": '{"age": {"Units": "months"}}',
        "sub-c/sub-c_sessions.json": '{"age": {"Units": "months"',
        "sub-d/sub-d_sessions.json": '{"age": {"Units": "fortnights"}}',
    }
    assert ages(tree(tmp_path, {name: ["1"] for name in "abcd"}, files)) == {
        ("a", "1"): 30.6,
        ("b", "1"): 2.55,
        ("c", "1"): "unreadable-table",
        ("d", "1"): "unreadable-table",
    }


def test_a_stray_quotation_mark_takes_no_other_participants_age(tmp_path: Path) -> None:
    lines = ['a\t"5 ft\t30.5', "b\tx\t40.5", 'c\t6" tall\t50.5', 'd\t"\t60.5', '"e"\t"y"\t"70.5"', 'f\t"5\t80.5"']
    table = {"participants.tsv": "participant_id\tnote\tage\n" + "".join(f"{line}\n" for line in lines)}
    assert ages(tree(tmp_path, {name: [""] for name in "abcdef"}, table)) == {
        ("a", ""): 30.5,
        ("b", ""): 40.5,
        ("c", ""): 50.5,
        ("d", ""): 60.5,
        ("e", ""): 70.5,
        ("f", ""): "unreadable-age",
    }


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_cell_over_several_lines_is_refused_by_line_and_quotes_nobody(tmp_path: Path, end: str) -> None:
    lines = ["participant_id\tnote\tage", "sub-a\tx\t30.5", 'sub-b\t"Zwyntarow', 'moved"\t40.5', ""]
    (tmp_path / "participants.tsv").write_bytes(end.join(lines).encode())
    with pytest.raises(FedAgeError, match="line 3 has a quotation mark") as raised:
        read_rows(tmp_path / "participants.tsv", key="participant_id")
    assert "Zwyntarow" not in str(raised.value)
    (tmp_path / "participants.tsv").write_bytes(end.join([*lines[:2], ""]).encode())
    assert read_rows(tmp_path / "participants.tsv", key="participant_id") == [
        {"participant_id": "sub-a", "note": "x", "age": "30.5"}
    ]


@pytest.mark.parametrize("fraction", ["40,5", "40.5", "0,25"])
def test_one_age_with_decimals_shows_that_none_is_a_completed_year(tmp_path: Path, fraction: str) -> None:
    table = {"participants.tsv": f"participant_id\tage\nsub-a\t{fraction}\nsub-b\t41\n"}
    assert ages(tree(tmp_path, {"a": [""], "b": [""]}, table))["b", ""] == 41.0


@pytest.mark.parametrize("name", ["Age_years", "age (y)", "Alter", "birth"])
def test_a_data_set_without_a_column_of_ages_is_refused_once(tmp_path: Path, name: str) -> None:
    root = tree(tmp_path, {"a": ["1"]}, {"participants.tsv": f"participant_id\t{name}\nsub-a\t40.5\n"})
    with pytest.raises(FedAgeError, match=r"participants\.tsv has no column 'age' .*rename the column of ages to age"):
        ages(root)
    (root / "sub-a/sub-a_sessions.tsv").write_text("session_id\tage\n1\t40.5\n")
    assert ages(root) == {("a", "1"): 40.5}


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("sub-a/ses-1/anat/sub-b_ses-1_T1w.nii.gz", "misnamed"),  # b's volume in a's folder
        ("sub-a/ses-1/anat/sub-a_ses-2_T1w.nii.gz", "misnamed"),
        ("sub-a/ses-1/anat/sub-a_ses-01_T1w.nii.gz", "misnamed"),
        ("sub-a/ses-1/anat/sub-A_ses-1_T1w.nii.gz", "misnamed"),
        ("sub-a/ses-1/anat/sub-a_ses-1_T1W.nii.gz", "misnamed"),
        ("sub-a/ses-1/anat/sub-a_t1.nii.gz", "misnamed"),
        ("sub-a/ses-1/anat/MPRAGE.nii.gz", "misnamed"),
        ("sub-a/anat/sub-a_T1w.nii.gz", "misnamed"),  # beside folders of sessions
        ("sub-a/ses-1/anat/sub-a_ses-1_part-phase_T1w.nii.gz", "not-grey-values"),
        ("sub-a/ses-1/anat/sub-a_ses-1_part-imag_run-2_T1w.nii.gz", "not-grey-values"),
        ("sub-a/ses-1/anat/sub-a_ses-1_part-mag_T1w.nii.gz", None),
        ("sub-a/ses-1/anat/sub-a_T1w.nii.gz", None),  # as OpenBHB has it
        ("sub-a/ses-1/anat/sub-a_ses-1_T1map.nii.gz", "ignored"),
        ("sub-a/ses-1/anat/sub-a_ses-1_T2w.nii.gz", "ignored"),
    ],
)
def test_a_volume_is_of_whom_its_folder_and_its_name_say(tmp_path: Path, place: str, reason: str | None) -> None:
    root = data_set(tmp_path / "data", TWO)
    t1w(root, "a", "1")
    (root / place).parent.mkdir(exist_ok=True)
    data = np.arange(120, dtype=np.int16).reshape(6, 5, 4)
    nib.save(nib.Nifti1Image(data, np.eye(4)), tmp_path / "x.nii")
    (root / place).write_bytes(gzip.compress((tmp_path / "x.nii").read_bytes()))
    with CohortStore.open(tmp_path / "home", key=bytes(range(32))) as store:
        report = index_bids(store, root)
        assert (report.patients, report.images) == (1, 2 if reason is None else 1)
        assert report.rejected == ({} if reason in (None, "ignored") else {reason: 1})
    assert all(Reason(code).sentence for code in report.rejected)


@pytest.mark.parametrize(
    "levels", [{"1": "18-39", "3": "60 and older"}, {" 2 ": {"Description": "adult"}}, {"1.0": ""}]
)
@pytest.mark.parametrize("key", ["Levels", "levels"])
def test_codes_of_age_groups_are_no_ages(tmp_path: Path, levels: object, key: str) -> None:
    """Code 3 was an age of three and a half years."""
    about = json.dumps({"age": {"Description": "age group", key: levels}})
    tree(tmp_path, {"a": [""]}, {"participants.tsv": "participant_id\tage\nsub-a\t3\n", "participants.json": about})
    with pytest.raises(FedAgeError, match="gives Levels for age, so its numbers are codes of groups, not ages"):
        ages(tmp_path)


def test_a_word_among_ages_may_be_a_level(tmp_path: Path) -> None:
    about = json.dumps({"age": {"Units": "years", "Levels": {"n/a": "not told", "89+": "89 and older"}}})
    tree(tmp_path, {"a": [""]}, {"participants.tsv": "participant_id\tage\nsub-a\t30.5\n", "participants.json": about})
    assert ages(tmp_path) == {("a", ""): 30.5}
