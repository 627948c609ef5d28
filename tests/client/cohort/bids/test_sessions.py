"""Which session an age is of: never by alphabet, and none at all where nobody knows."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from fedage.client.cohort.bids.participants import AgeColumn, read_rows
from fedage.client.cohort.bids.session_files import STANDARD, FolderWalk
from fedage.client.cohort.bids.session_order import first_label
from fedage.client.cohort.bids.sessions import Session, read_sessions
from fedage.client.cohort.reasons import Reason
from fedage.common.errors import FedAgeError

Ages = dict[tuple[str, str], float | str]


def tree(root: Path, sessions: Mapping[str, list[str]], files: Mapping[str, str]) -> Path:
    """Empty volumes of participants' sessions, and tables as they are."""
    for name, labels in sessions.items():
        for label in labels:
            folder = root / f"sub-{name}" / (f"ses-{label}" if label else ".") / "anat"
            folder.mkdir(parents=True)
            (folder / f"sub-{name}{f'_ses-{label}' if label else ''}_T1w.nii.gz").touch()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def sessions_of(root: Path) -> list[Session]:
    return read_sessions(FolderWalk(root), STANDARD)


def ages(root: Path) -> Ages:
    return {
        (session.participant.removeprefix("sub-"), session.label.removeprefix("ses-")): (
            str(session.age) if isinstance(session.age, Reason) else round(session.age.years, 3)
        )
        for session in sessions_of(root)
    }


NONE = "no-age-of-session"
ONE = {"participants.tsv": "participant_id\tage\nsub-a\t40.5\n"}


@pytest.mark.parametrize(
    ("labels", "first"),
    [
        (["2YearFollowUp", "baseline"], "baseline"),
        (["10", "2", "1"], "1"),
        (["02", "01", "11"], "01"),
        (["M12", "M00", "M6"], "M00"),
        (["V3", "v1", "V02"], "v1"),
        (["wave2", "wave10", "wave1"], "wave1"),
        (["bl", "m12", "m06"], "bl"),
        (["T1", "T0"], "T0"),
        (["20190301", "20180401"], "20180401"),
        (["post", "pre"], None),
        (["M12", "M24"], None),  # the months before are of another session
        (["2", "3"], None),
        (["y1", "y2"], None),
        (["1", "01"], None),
        (["1", "2b"], None),
        (["A", "B"], None),
        (["followup1", "followup2"], None),
        (["screening", "baseline"], None),
        (["Baseline", "baseline"], None),
        (["retest"], None),
        (["2YearFollowUp"], None),
        (["M36"], None),
        *(([later], None) for later in ("24m", "2y", "02", "third", "followup2", "24MonthFU", "visitII", "2ndVisit")),
        *(
            ([later], None)
            for later in ("18mo", "scan10", "fu3", "v02m24", "secondvisit", "final", "2b", "J2e", "4wks", "tp2")
        ),
        *(([first], first) for first in ("01", "1", "mri", "A", "0m", "M00", "7T", "3tesla", "T1w", "2dmri", "v01m00")),
        *(([first], first) for first in ("1st", "1998", "12345", "pre", "func01", "day0", "1a", "lastname")),
    ],
)
def test_one_age_is_of_the_first_session_where_that_is_known(
    tmp_path: Path, labels: list[str], first: str | None
) -> None:
    found = ages(tree(tmp_path, {"a": labels}, ONE))
    if all(label.startswith("20") for label in labels):
        assert found == {("a", "20180401"): 40.5, ("a", "20190301"): round(40.5 + 334 / 365.25, 3)}
    else:
        assert found == {("a", label): 40.5 if label == first else NONE for label in labels}


def test_who_has_only_a_later_session_has_no_age(tmp_path: Path) -> None:
    table = {"participants.tsv": "participant_id\tage\nsub-a\t40.5\nsub-b\t50.5\nsub-c\t60.5\n"}
    found = ages(tree(tmp_path, {"a": ["baseline", "2YearFollowUp"], "b": ["2YearFollowUp"], "c": ["baseline"]}, table))
    assert found == {
        ("a", "baseline"): 40.5,
        ("a", "2YearFollowUp"): NONE,
        ("b", "2YearFollowUp"): NONE,
        ("c", "baseline"): 60.5,
    }


@pytest.mark.parametrize("labels", [("02", "03"), ("m12", "m24"), ("fu1", "fu2"), ("second", "third")])
def test_the_earliest_day_is_not_the_first_where_its_label_says_so(tmp_path: Path, labels: tuple[str, str]) -> None:
    days = f"session_id\tacq_time\n{labels[0]}\t2018-04-01\n{labels[1]}\t2019-04-01\n"
    root = tree(tmp_path, {"a": list(labels)}, ONE | {"sub-a/sub-a_sessions.tsv": days})
    assert ages(root) == {("a", label): NONE for label in labels}


@pytest.mark.parametrize("row", ["sub-b", "sub-b\t50.5", "sub-b\tF"])
def test_a_row_of_too_few_cells_is_refused_by_its_line(tmp_path: Path, row: str) -> None:
    text = f"participant_id\tsex\tage\t\nsub-a\tF\t40.5\n\n{row}\n"
    with pytest.raises(
        FedAgeError, match=r"participants\.tsv: line 4 has fewer cells than the header has columns; write n/a and a tab"
    ):
        sessions_of(tree(tmp_path / "x", {"a": [""]}, {"participants.tsv": text}))
    own = {"sub-a/sub-a_sessions.tsv": "session_id\tacq_time\tage\n1\t2020-01-01\n"}
    assert ages(tree(tmp_path / "y", {"a": ["1"]}, ONE | own)) == {("a", "1"): "unreadable-table"}
    complete = {"participants.tsv": "participant_id\tage\tnote\t\nsub-a\t40.5\t\n\n \n"}
    assert ages(tree(tmp_path / "z", {"a": [""]}, complete)) == {("a", ""): 40.5}


@pytest.mark.parametrize("label", ["24m", "02", "third", "followup2"])
def test_a_lone_later_session_has_the_age_that_a_table_gives_it(tmp_path: Path, label: str) -> None:
    of_session = {"sub-a/sub-a_sessions.tsv": f"session_id\tage\nses-{label}\t42.5\n"}
    assert ages(tree(tmp_path / "own", {"a": [label]}, ONE | of_session)) == {("a", label): 42.5}
    row = {"participants.tsv": f"participant_id\tsession_id\tage\nsub-a\tses-{label}\t43.5\n"}
    assert ages(tree(tmp_path / "row", {"a": [label]}, row)) == {("a", label): 43.5}


def test_a_row_a_session_counts_for_its_session_only(tmp_path: Path) -> None:
    table = {
        "participants.tsv": (
            "participant_id\tsession_id\tage\tsex\n"
            "sub-a\tses-post\t42.5\tF\nsub-a\tpre\t40.5\tF\n"
            "sub-b\tpre\t50.5\tM\nsub-c\tn/a\t60.5\tM\nsub-d\tpre\t70.5\tF\nsub-d\tpost\tn/a\tM\n"
        )
    }
    labels = ["post", "pre"]
    root = tree(tmp_path, {"a": labels, "b": labels, "c": labels, "d": labels}, table)
    assert ages(root) == {
        ("a", "post"): 42.5,
        ("a", "pre"): 40.5,
        ("b", "post"): NONE,
        ("b", "pre"): 50.5,
        ("c", "post"): NONE,
        ("c", "pre"): NONE,
        ("d", "post"): NONE,
        ("d", "pre"): 70.5,
    }
    sexes = {session.participant: session.sex for session in sessions_of(root)}
    assert sexes == {"sub-a": "F", "sub-b": "M", "sub-c": "M", "sub-d": None}  # d's rows contradict each other


def test_rows_that_contradict_each_other_give_no_age(tmp_path: Path) -> None:
    rows = ("a\t40.5", "a\t42.5", "b\t50.5", "b\t50.5", "c\tn/a", "c\t60.5")
    table = {"participants.tsv": "participant_id\tage\n" + "".join(f"sub-{row}\n" for row in rows)}
    assert ages(tree(tmp_path, {"a": [""], "b": [""], "c": [""]}, table)) == {
        ("a", ""): "several-ages",
        ("b", ""): 50.5,
        ("c", ""): 60.5,
    }
    of_session = {"sub-a/sub-a_sessions.tsv": "session_id\tage\n1\t40.5\nses-1\t41.5\n2\t43.5\n"}
    assert ages(tree(tmp_path / "x", {"a": ["1", "2"]}, ONE | of_session)) == {
        ("a", "1"): "several-ages",
        ("a", "2"): 43.5,
    }


def test_times_order_sessions_whatever_their_labels(tmp_path: Path) -> None:
    later = round(40.5 + 365 / 365.25, 3)
    cases = {
        "sessions": {
            "sub-a/sub-a_sessions.tsv": "session_id\tacq_time\npost\t1901-03-02T10:00:00\npre\t1900-03-02T09:00:00\n"
        },
        "scans": {
            f"sub-a/ses-{label}/sub-a_ses-{label}_scans.tsv": (
                f"filename\tacq_time\nfunc/x_bold.nii.gz\t1800-01-01\nanat/sub-a_ses-{label}_T1w.nii.gz\t{year}-03-02T10:00:00\n"
            )
            for label, year in (("post", 1901), ("pre", 1900))
        },
    }
    for name, files in cases.items():
        found = ages(tree(tmp_path / name, {"a": ["post", "pre"]}, ONE | files))
        assert found == {("a", "pre"): 40.5, ("a", "post"): later}, name
    # A session that only the table knows is the first one, so that the other is older than the participant's age.
    only_later = tree(tmp_path / "later", {"a": ["post"]}, ONE | cases["sessions"])
    assert ages(only_later) == {("a", "post"): later}
    # One first of January for all is nobody's date.
    same = {"sub-a/sub-a_sessions.tsv": "session_id\tacq_time\npost\t1900-01-01\npre\t1900-01-01\n"}
    assert ages(tree(tmp_path / "same", {"a": ["post", "pre"]}, ONE | same)) == {
        ("a", "pre"): NONE,
        ("a", "post"): NONE,
    }
    # A row of participants.tsv and times: the other session is so much older or younger.
    named = {"participants.tsv": "participant_id\tsession_id\tage\nsub-a\tpost\t41.5\n"}
    found = ages(tree(tmp_path / "named", {"a": ["post", "pre"]}, named | cases["sessions"]))
    assert found == {("a", "post"): 41.5, ("a", "pre"): round(41.5 - 365 / 365.25, 3)}


@pytest.mark.parametrize("column", ["session", "ses", "Session_Label", "visit", "timepoint"])
@pytest.mark.parametrize("cell", ["2", "ses-2"])
def test_a_session_under_another_name_of_its_column_keeps_its_age(tmp_path: Path, column: str, cell: str) -> None:
    one = {"participants.tsv": f"participant_id\t{column}\tage\nsub-a\t{cell}\t41.5\n"}
    assert ages(tree(tmp_path, {"a": ["1", "2"]}, one)) == {("a", "1"): NONE, ("a", "2"): 41.5}
    # What names no session of the participant is no session: codes of visits are of many kinds.
    other = {"participants.tsv": f"participant_id\t{column}\tage\nsub-a\tfirst\t40.5\n"}
    assert ages(tree(tmp_path / "x", {"a": ["1", "2"]}, other)) == {("a", "1"): 40.5, ("a", "2"): NONE}


def test_sessions_of_unknown_order_have_no_place(tmp_path: Path) -> None:
    """Else the alphabetically first would be the baseline exam, though the tables give both ages."""
    own = {"sub-a/sub-a_sessions.tsv": "session_id\tage\nbaseline\t40.5\n2YearFollowUp\t42.5\n"}
    found = sessions_of(tree(tmp_path, {"a": ["2YearFollowUp", "baseline"]}, ONE | own))
    assert {session.position for session in found} == {None}
    numbered = sessions_of(tree(tmp_path / "n", {"a": ["10", "2", "1"]}, ONE))
    assert {session.label: session.position for session in numbered} == {"ses-1": 0, "ses-2": 1, "ses-10": 2}


@pytest.mark.parametrize("header", ["age\tage", "Age\tage", "age \tAGE", "AGE\tsex\tage"])
def test_a_column_twice_is_refused(tmp_path: Path, header: str) -> None:
    cells = "\t".join(["40.5", "41.5", "42.5"][: header.count("\t") + 1])
    root = tree(tmp_path, {"a": [""]}, {"participants.tsv": f"participant_id\t{header}\nsub-a\t{cells}\n"})
    with pytest.raises(FedAgeError, match=r"participants\.tsv has a column twice \(.*\); rename or drop one"):
        sessions_of(root)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sub-a/sub-a_sessions.tsv", "session_id\tage\tAge\n1\t40.5\t50.5\n"),
        ("sub-a/sub-a_sessions.tsv", "session_id\tacq_time\tacq_time\n1\t1900-01-02\t1901-01-02\n"),
        ("sub-a/ses-1/sub-a_ses-1_scans.tsv", "filename\tacq_time\tAcq_Time\nx\t1900-01-02\t1901-01-02\n"),
        ("sub-a/sub-a_sessions.tsv", "session_id\tage\n1\t40\t5\n"),
        ("sub-a/sub-a_sessions.tsv", "session,age\n1,40\n"),
    ],
)
def test_a_table_of_one_participant_is_set_aside_by_reason_and_names_nobody(
    tmp_path: Path, name: str, text: str
) -> None:
    table = {"participants.tsv": "participant_id\tage\nsub-a\t40.5\nsub-b\t50.5\n", name: text}
    assert ages(tree(tmp_path, {"a": ["1"], "b": ["1"]}, table)) == {("a", "1"): "unreadable-table", ("b", "1"): 50.5}


def test_other_columns_twice_and_rows_too_long_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("participant_id\tgroup\tGroup\nsub-a\tx\ty\n")
    with pytest.raises(FedAgeError, match=r"a\.tsv has a column twice \('group' at places \d and \d\)"):
        read_rows(tmp_path / "a.tsv", key="participant_id")
    (tmp_path / "b.tsv").write_text("participant_id\tage\nsub-a\t40\t5\n")
    with pytest.raises(FedAgeError, match="line 2 has more cells"):
        read_rows(tmp_path / "b.tsv", key="participant_id")
    (tmp_path / "c.tsv").write_text("participant_id\tage\t\t\nsub-a\t40\t\t\nn/a\t3\n")
    assert [row["age"] for row in read_rows(tmp_path / "c.tsv", key="participant_id")] == ["40"]


@pytest.mark.parametrize(
    ("text", "years"),
    [
        ("45", 45.5),
        ("045Y", 45.5),
        ("045y", 45.5),
        ("018M", 18.5 / 12),
        ("18 months", 18.5 / 12),
        ("45 years", 45.5),
        ("45y", 45.5),
        ("010W", 10.5 * 7 / 365.25),
        ("089Y", 89.0),
        ("89+", 89.0),
        (">= 89 years", 89.0),
        ("", Reason.NO_AGE),
        ("n/a", Reason.NO_AGE),
        ("18-38", Reason.UNREADABLE_AGE),
        ("45,5", Reason.UNREADABLE_AGE),
        ("<18", Reason.UNREADABLE_AGE),
        ("forty", Reason.UNREADABLE_AGE),
        ("45 apples", Reason.UNREADABLE_AGE),
        ("-45", Reason.UNREADABLE_AGE),
        ("450", Reason.IMPLAUSIBLE_AGE),
        ("450Y", Reason.IMPLAUSIBLE_AGE),
    ],
)
def test_ages_as_people_write_them(text: str, years: float | Reason) -> None:
    found = AgeColumn("year", whole=True).age(text)
    assert (found if isinstance(found, Reason) else found.years) == (
        years if isinstance(years, Reason) else pytest.approx(years)
    )


def test_a_unit_beside_the_table_is_found_whatever_its_capitals(tmp_path: Path) -> None:
    months = {
        "participants.tsv": "participant_id\tAge\nsub-a\t30.6\n",
        "participants.json": '{"Age": {"Units": "months"}}',
    }
    assert ages(tree(tmp_path, {"a": [""]}, months)) == {("a", ""): 2.55}
    both = months | {"participants.json": '{"Age": {"Units": "months"}, "age": {"Units": "years"}}'}
    with pytest.raises(FedAgeError, match="describes the column 'age' twice"):
        sessions_of(tree(tmp_path / "both", {"a": [""]}, both))
    of_sessions = {
        "sub-a/sub-a_sessions.tsv": "session_id\tage\n1\t2.5\n",
        "sessions.json": '{"age": {"Units": "year"}}',
    }
    assert ages(tree(tmp_path / "sessions", {"a": ["1"]}, months | of_sessions)) == {("a", "1"): 2.5}


def test_no_labels_have_no_first() -> None:
    assert first_label([]) is None


@pytest.mark.parametrize("column", ["days_since_baseline", "days_from_first_scan", "Days since enrolment"])
def test_days_that_a_table_counts_order_sessions(tmp_path: Path, column: str) -> None:
    table = f"session_id\t{column}\nses-zeta\t0\nses-alpha\t731\n"
    root = tree(tmp_path, {"a": ["alpha", "zeta"]}, ONE | {"sub-a/sub-a_sessions.tsv": table})
    assert ages(root) == {("a", "alpha"): 42.501, ("a", "zeta"): 40.5}


@pytest.mark.parametrize(
    "table",
    [
        "session_id\tdays_since_baseline\nses-1\t400\nses-2\t800\n",  # the first session has no volume and no row
        "session_id\tmonths_since_bl\nses-1\t6\n",
        "session_id\tacq_time\tdays_since_baseline\nses-1\t2019-01-02\t40\nses-2\t2019-03-02\t100\n",
    ],
)
def test_an_age_is_of_no_session_that_a_table_counts_as_later(tmp_path: Path, table: str) -> None:
    root = tree(tmp_path, {"a": ["1", "2"]}, ONE | {"sub-a/sub-a_sessions.tsv": table})
    assert set(ages(root).values()) == {NONE}


def test_counted_days_and_dates_that_differ_tell_no_age_between(tmp_path: Path) -> None:
    table = "session_id\tacq_time\tdays_since_baseline\nses-1\t2019-01-02\t0\nses-2\t2019-03-02\t1000\n"
    root = tree(tmp_path, {"a": ["1", "2"]}, ONE | {"sub-a/sub-a_sessions.tsv": table})
    assert ages(root) == {("a", "1"): 40.5, ("a", "2"): NONE}


@pytest.mark.parametrize("column", ["age_at_scan", "scan_age", "Age_at_MRI_years", "age_months_at"])
def test_two_ages_of_one_row_that_differ_are_several(tmp_path: Path, column: str) -> None:
    table = f"participant_id\tage\t{column}\nsub-a\t40.5\t47.2\nsub-b\t40.5\t40.9\nsub-c\t40.5\tn/a\n"
    root = tree(tmp_path, {"a": [""], "b": [""], "c": [""]}, {"participants.tsv": table})
    several = 40.5 if column == "age_months_at" else "several-ages"
    assert ages(root) == {("a", ""): several, ("b", ""): 40.5, ("c", ""): 40.5}


def test_a_second_age_in_months_is_compared_in_years(tmp_path: Path) -> None:
    table = "participant_id\tage\tage_at_scan_months\nsub-a\t40.5\t486.1\nsub-b\t40.5\t600.5\n"
    root = tree(tmp_path, {"a": [""], "b": [""]}, {"participants.tsv": table})
    assert ages(root) == {("a", ""): 40.5, ("b", ""): "several-ages"}
