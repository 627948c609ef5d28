"""`fedage site index`: what the settings name is found, read and shown, and what they no longer name goes."""

from pathlib import Path
from typing import Any

import pytest

from fedage.client.cli.index import SiteIndex, index_into
from fedage.client.cohort.store.query import select
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import read_table
from fedage.client.site.home import SiteConfig
from fedage.common.errors import FedAgeError
from tests.client.cohort.bids.test_bids import data_set, t1w
from tests.client.cohort.dicoms import write


def index(home: Path, **settings: Any) -> SiteIndex:
    config = SiteConfig.model_validate({"name": "x", "coordinator": "example.org:1", **settings})
    with CohortStore.open(home, key=bytes(range(32))) as store:
        return index_into(store, config, file=home / "site.toml")


def outcomes_of(home: Path) -> dict[str, list[float]]:
    with CohortStore.open(home) as store:
        found = select(store, modalities=(), age_min_years=0, age_max_years=130)
        return {name: sorted(column.tolist()) for name, column in found.outcomes.items()}


def test_a_folder_of_dicom_files_with_mapped_outcomes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"data/{name}.dcm", name)
    (tmp_path / "outcomes.csv").write_text("MRN;dead\na;yes\nb;no\nz;no\n")
    columns = {"id": "MRN", "columns": {"event": {"column": "dead", "values": {"yes": 1.0, "no": 0.0}}}}
    given = {"data": str(tmp_path / "data"), "outcomes": str(tmp_path / "outcomes.csv"), "outcome_columns": columns}
    found = index(tmp_path / "home", **given)
    assert (found.layout, found.patients, found.table) == ("dicom", 2, None)
    assert found.outcomes["patients-with-outcomes"] == 2
    assert found.outcomes["unknown-patients"] == 1
    assert outcomes_of(tmp_path / "home") == {"event": [0.0, 1.0]}
    (tmp_path / "outcomes.csv").write_text("MRN,death\na,yes\n")
    with pytest.raises(FedAgeError, match="no column 'dead', it has 2 columns"):
        index(tmp_path / "home", **given)
    assert outcomes_of(tmp_path / "home") == {"event": [0.0, 1.0]}
    index(tmp_path / "home", data=str(tmp_path / "data"))
    assert outcomes_of(tmp_path / "home") == {}


def test_bids_is_recognised_and_its_participants_may_be_named_without_prefix(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\nsub-1\t40.5\nsub-2\t50.5\n")
    t1w(root, "1")
    t1w(root, "2")
    (tmp_path / "outcomes.csv").write_text("patient_id,event\n1,1\nsub-2,0\n")
    found = index(tmp_path / "home", data=str(root), outcomes=str(tmp_path / "outcomes.csv"))
    assert (found.layout, found.patients) == ("bids", 2)
    assert outcomes_of(tmp_path / "home") == {"event": [0.0, 1.0]}
    as_dicom = index(tmp_path / "home", data=str(root), layout="dicom")
    assert as_dicom.images is not None
    assert (as_dicom.layout, as_dicom.images.images) == ("dicom", 0)
    assert as_dicom.images.rejected == {"not-dicom": 4}
    again = index(tmp_path / "home", data=str(root))
    assert again.images is not None
    assert (again.images.new, again.images.images, again.images.rejected) == (2, 2, {})


def test_participants_tsv_tells_diagnoses_where_there_is_no_other_table(tmp_path: Path) -> None:
    root = data_set(tmp_path / "data", "participant_id\tage\tgroup\tscore\nsub-1\t40.5\tHC\t3\nsub-2\t50.5\tAD\tn/a\n")
    t1w(root, "1")
    t1w(root, "2")
    index(tmp_path / "home", data=str(root))
    assert outcomes_of(tmp_path / "home")["age"] == [40.5, 50.5]
    columns = {"columns": {"healthy": {"column": "group", "values": {"HC": 1.0}, "others": 0.0}, "score": "score"}}
    found = index(tmp_path / "home", data=str(root), outcome_columns=columns)
    assert found.outcomes["patients-with-outcomes"] == 2
    assert outcomes_of(tmp_path / "home")["healthy"] == [0.0, 1.0]
    assert outcomes_of(tmp_path / "home")["score"][0] == 3.0


def test_a_table_beside_images_or_instead_and_what_is_no_longer_named_goes(tmp_path: Path) -> None:
    write(tmp_path / "data/a.dcm", "a")
    (tmp_path / "t.csv").write_text("who,age\na,50\nb,60\n")
    table = {"path": str(tmp_path / "t.csv"), "id": "who"}
    both = index(tmp_path / "home", data=str(tmp_path / "data"), table=table)
    assert (both.images is not None, both.table is not None, both.patients) == (True, True, 2)
    only = index(tmp_path / "home", table=table)
    assert (only.layout, only.images) == ("", None)
    with CohortStore.open(tmp_path / "home") as store:
        assert store.counts()["images"] == 0
        assert read_table(store) is not None
    index(tmp_path / "home", data=str(tmp_path / "data"))
    with CohortStore.open(tmp_path / "home") as store:
        assert store.counts()["images"] == 1
        assert read_table(store) is None


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, r"data is not set; .*add a \[table\]"),
        ({"recipe": "cmmd", "table": {"path": "/x.csv", "id": "i"}}, "recipe = 'cmmd' needs data"),
        ({"table": {"path": "/nowhere/x.csv", "id": "i"}}, r"cannot be read .*correct table\.path"),
        ({"data": "/nowhere"}, "cannot be read as a folder"),
    ],
)
def test_settings_without_data_are_refused(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(FedAgeError, match=says):
        index(tmp_path / "home", **settings)


@pytest.mark.parametrize("kind", ["description", "volumes", "sessions", "csv", "capitals", "explicit"])
def test_a_bids_folder_without_its_table_is_one_error_and_no_heap_of_files_that_are_no_dicom(
    tmp_path: Path, kind: str
) -> None:
    root = data_set(tmp_path / "data", "")
    (root / "participants.tsv").unlink()
    for name in ("1", "2"):
        t1w(root, name, "a" if kind == "sessions" else "")
    if kind in ("volumes", "sessions"):
        (root / "dataset_description.json").unlink()
    if kind in ("csv", "capitals"):
        (root / {"csv": "participants.csv", "capitals": "Participants.TSV"}[kind]).write_text("participant_id,age\n")
    layout = {"layout": "bids"} if kind == "explicit" else {}
    says = "it has [Pp]articipants.(csv|TSV): save that table" if kind in ("csv", "capitals") else "add it .*layout = "
    with pytest.raises(FedAgeError, match=rf"is read as a BIDS data set and has no participants\.tsv.*{says}"):
        index(tmp_path / "home", data=str(root), **layout)
    found = index(tmp_path / "home", data=str(root), layout="dicom")
    assert found.layout == "dicom"


def test_participants_tsv_with_a_row_a_session_gives_no_session_s_value_as_the_patient_s(tmp_path: Path) -> None:
    rows = (
        "sub-1\tpost\t42.5\t3\tHC\t1",
        "sub-1\tpre\t40.5\t5\tHC\t0",
        "sub-2\tpre\t50.5\t7\tAD\t0",
        "sub-2\tpost\t52.5\t7\tAD\t0",
        "sub-3\tpre\t60.5\tn/a\tHC\t1",
        "sub-3\tpost\t62.5\t9\tHC\t1",
    )
    table = "participant_id\tsession_id\tage\tscore\tgroup\tevent\n" + "".join(f"{row}\n" for row in rows)
    root = data_set(tmp_path / "data", table)
    for name in ("1", "2", "3"):
        t1w(root, name, "post")
        t1w(root, name, "pre")
    found = index(tmp_path / "home", data=str(root))
    assert found.outcomes["sessions-differ:score"] == 1
    assert found.outcomes["sessions-differ:event"] == 1
    with CohortStore.open(tmp_path / "home") as store:
        cohort = select(store, modalities=(), age_min_years=0, age_max_years=130)
        row = [cohort.keys.index(store.patient_key(f"sub-{name}")) for name in ("1", "2", "3")]
    assert cohort.age_years[row].tolist() == [40.5, 50.5, 60.5]
    assert str(cohort.outcomes["score"][row].tolist()) == "[nan, 7.0, 9.0]"
    assert str(cohort.outcomes["event"][row].tolist()) == "[nan, 0.0, 1.0]"
    columns = {"columns": {"event": {"column": "event", "rows": "max"}}}
    index(tmp_path / "home", data=str(root), outcome_columns=columns)
    assert sorted(outcomes_of(tmp_path / "home")["event"]) == [0.0, 1.0, 1.0]


def test_a_site_may_say_which_view_its_folder_holds_where_files_do_not(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "none.dcm", "a", ViewPosition=None)
    write(data / "side.dcm", "b", ViewPosition="LL")
    write(data / "breast.dcm", "c", ViewPosition=None, Modality="MG")

    def views(**settings: Any) -> dict[str, str]:
        index(tmp_path / "home", data=str(data), **settings)
        with CohortStore.open(tmp_path / "home") as store, store.reading() as connection:
            return {store.path_of(path): view for path, view in connection.execute("SELECT path, view FROM images")}

    assert views() == {"none.dcm": "", "side.dcm": "LL", "breast.dcm": ""}
    assert views(view_if_unknown="AP") == {"none.dcm": "AP", "side.dcm": "LL", "breast.dcm": ""}
    assert views(view_if_unknown="PA") == {"none.dcm": "PA", "side.dcm": "LL", "breast.dcm": ""}
    assert views() == {"none.dcm": "", "side.dcm": "LL", "breast.dcm": ""}
