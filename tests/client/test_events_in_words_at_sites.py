"""A word among the events of a site's own table or outcomes is refused as in a simulation, unless a mapping leaves it.

The patients who have it would be missing, by nothing but their event.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.store.migrations import _PERSON
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import index_table, read_table
from fedage.client.cohort.table.messages import reason_text
from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.consent.site_cohorts import ImageCohorts, TableCohorts
from fedage.client.site.mapping import Mapped, TableSource
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import RequestRefused
from tests.client.cohort.dicoms import write
from tests.client.test_indexing import index

SURVIVAL = """
[campaign]
name = "events"
purpose = "Try what a column of events may hold"
seed = 1
[survival]
time = "time"
event = "event"
[[survival.models]]
name = "thick"
covariates = ["thick"]
"""
ON_TABLES = parse_campaign(f'{SURVIVAL}\n[table]\nid = "id"\nage = "age"\n')
ON_IMAGES = parse_campaign(f'{SURVIVAL}\n[estimator]\nname = "chest-ca"\n[training]\nrounds = 1\n')
MAPPED = Mapped(column="event", values={"1": 1.0, "0": 0.0})


def table(folder: Path, words: list[str]) -> Path:
    rng = np.random.default_rng(0)
    events = [*words, *["0", "1", "1"] * 10][:30]
    values = {"age": rng.uniform(20, 80, 30), "thick": rng.normal(3, 0.3, 30), "time": rng.uniform(0.1, 9, 30)}
    frame = pd.DataFrame({"id": [f"p{k}" for k in range(30)], "site": "a", "event": events, **values})
    frame.to_csv(folder / "t.csv", index=False)
    return folder / "t.csv"


def read(folder: Path, path: Path, **settings: object) -> TableCohorts:
    with CohortStore.open(folder / "home", key=bytes(range(32))) as store:
        index_table(store, TableSource(path=str(path), id="id", age="age", **settings))
    return TableCohorts(folder / "home")


WORDS = [["dead"], ["lost"], ["?"], ["1 or 0", "0 (lost)"], ["Tod"] * 3, ["m"], ["2020-01-01"]]


@pytest.mark.parametrize("words", WORDS)
def test_a_word_among_the_events_of_a_table_is_refused_at_a_site_as_in_a_simulation(
    tmp_path: Path, words: list[str]
) -> None:
    path = table(tmp_path, words)
    with pytest.raises(FedAgeError, match=r"column 'event' holds .*, where numbers belong"):
        read_site_tables(path, ON_TABLES, site_column="site")
    site = read(tmp_path, path)
    for asked in (site.read, site.columns, site.count):
        with pytest.raises(RequestRefused, match="column 'event' of this site's table holds texts") as refused:
            asked(ON_TABLES)
    assert refused.value.rule == "text-column"
    assert len(words[0]) == 1 or words[0] not in str(refused.value)


@pytest.mark.parametrize("words", WORDS)
def test_a_word_that_a_mapping_leaves_out_is_missing_by_a_reason_of_its_own(tmp_path: Path, words: list[str]) -> None:
    site = read(tmp_path, table(tmp_path, words), columns={"event": MAPPED})
    found = site.read(ON_TABLES)
    assert np.isnan(found.cohort["event"]).sum() == len(words)
    assert found.rejected_files == {"not-named:event": len(words)}
    assert "words or codes that its mapping does not list" in reason_text("not-named:event", len(words))


def test_a_table_without_words_is_answered_and_one_of_an_earlier_release_is_read_once_more(tmp_path: Path) -> None:
    path = table(tmp_path, ["1", "0", ""])
    assert np.isnan(read(tmp_path, path).read(ON_TABLES).cohort["event"]).sum() == 1
    path = table(tmp_path, ["lost"])
    site = read(tmp_path, path, columns={"event": MAPPED})
    with closing(sqlite3.connect(tmp_path / "home/cohort.db")) as db:  # as that release marked any word
        (odd,) = db.execute("SELECT odd FROM table_columns WHERE name = 'event'").fetchone()
        assert set(odd) == {0, 2}
        db.execute("UPDATE table_columns SET odd = ? WHERE name = 'event'", (odd.replace(b"\2", b"\1"),))
        db.commit()
    with pytest.raises(RequestRefused, match="index once more"):
        site.read(ON_TABLES)
    with CohortStore.open(tmp_path / "home") as store:
        assert (stored := read_table(store)) is not None
        assert (stored.frame["event"] == "?").sum() == 1


def outcomes(folder: Path, words: list[str], **settings: object) -> Path:
    events = [*words, "0", "1", "1", "0", "1"][:6]
    for number in range(len(events)):
        write(folder / f"data/{number}.dcm", f"p{number}", Modality="DX")
    rows = [f"p{number},{event},{number + 1}\n" for number, event in enumerate(events)]
    (folder / "o.csv").write_text("patient_id,event,time\n" + "".join(rows) + "elsewhere,lost,1\n")
    index(folder / "home", data=str(folder / "data"), outcomes=str(folder / "o.csv"), **settings)
    return folder / "home"


@pytest.mark.parametrize("words", [["dead"], ["lost"], ["1 or 0"], ["?", "?"]])
def test_a_word_among_the_events_of_outcomes_is_refused(tmp_path: Path, words: list[str]) -> None:
    home = outcomes(tmp_path, words)
    for asked in (ImageCohorts(home).columns, ImageCohorts(home).count, ImageCohorts(home).read):
        with pytest.raises(RequestRefused, match=r"'event' of this site's outcomes holds texts.*outcome_columns") as no:
            asked(ON_IMAGES)
    assert no.value.rule == "text-column"


def test_whether_words_are_refused_does_not_depend_on_whom_a_campaign_chooses(tmp_path: Path) -> None:
    """Else age limits, moved from one campaign to the next, would tell the age of the one patient with a word."""
    home = outcomes(tmp_path, ["lost"])
    for youngest, oldest in ((0, 130), (0, 10), (120, 130)):
        ages = f"[cohort]\nage_min_years = {youngest}\nage_max_years = {oldest}\n"
        campaign = parse_campaign(f'{SURVIVAL}\n[estimator]\nname = "chest-ca"\n[training]\nrounds = 1\n{ages}')
        with pytest.raises(RequestRefused, match="text-column"):
            ImageCohorts(home).count(campaign)


def test_words_of_nobody_with_images_and_words_that_a_mapping_leaves_are_no_ground_to_refuse(tmp_path: Path) -> None:
    home = outcomes(tmp_path, ["1"])
    assert ImageCohorts(home).count(ON_IMAGES) == 6
    mapped = {"columns": {"event": {"column": "event", "values": {"1": 1.0, "0": 0.0}}, "time": "time"}}
    home = outcomes(tmp_path, ["lost"], outcome_columns=mapped)
    assert np.isnan(ImageCohorts(home).columns(ON_IMAGES).cohort["event"]).sum() == 1


@pytest.mark.parametrize(
    ("rows", "marked"),
    [("a,1\na,lost\n", {}), ("a,lost\na,1\n", {"a": {"event"}}), ("a,lost\nb,0\nb,1\nc,1\n", {"a": {"event"}})],
)
def test_the_row_that_counts_is_the_one_whose_words_count(
    tmp_path: Path, rows: str, marked: dict[str, set[str]]
) -> None:
    (tmp_path / "o.csv").write_text(f"patient_id,event\n{rows}z,1\ny,0\nx,0\n")
    assert read_outcomes(tmp_path / "o.csv").words == marked
    assert read_outcomes(tmp_path / "o.csv", columns={"event": "event"}).words == marked
    worst = read_outcomes(tmp_path / "o.csv", columns={"event": Mapped(column="event", rows="max")})
    assert set(worst.words) == {"a"}
    assert read_outcomes(tmp_path / "o.csv", columns={"event": MAPPED}).words == {}


def test_outcomes_of_an_earlier_release_are_refused_until_they_are_indexed_again(tmp_path: Path) -> None:
    home = outcomes(tmp_path, ["1"])
    with closing(sqlite3.connect(home / "cohort.db")) as db:
        added = (
            f"ALTER TABLE {table} DROP COLUMN {column.split()[0]};"
            for table in ("images", "slices")
            for column in _PERSON
        )
        later = "".join(f"ALTER TABLE slices DROP COLUMN {column};" for column in ("body_part", "special"))
        db.executescript("DROP TABLE outcome_words;" + "".join(added) + later + "PRAGMA user_version = 5;")
    with pytest.raises(RequestRefused, match=r"indexed by an earlier release.*index once more"):
        ImageCohorts(home).count(ON_IMAGES)
    assert outcomes(tmp_path, ["1"]) == home
    assert ImageCohorts(home).count(ON_IMAGES) == 6
