"""A site's home of an earlier release: what it has answered counts on, whatever file it was in."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fedage.client.consent.accounts.account_file import ACCOUNTS_FILE, AccountsUnavailable
from fedage.client.consent.accounts.older_accounts import take_over_older_accounts
from fedage.client.consent.accounts.run_limits import RunLimits
from fedage.client.consent.accounts.table_grids import TableGrids
from fedage.client.consent.accounts.thresholds import Thresholds
from fedage.client.consent.rules import SiteRules
from fedage.client.disclosure.guard import Withheld
from fedage.common.protocol.messages import TRAIN, Request, RequestRefused
from tests.client.test_table_grids import CURVES, tables
from tests.client.test_thresholds import MINIMUM, TEST, between, cohort, mean_age

COORDINATOR = "c" * 64
ACCOUNT = f"{COORDINATOR[:32]}-chest"
DIGEST = "ab" * 32

# As the last release with a file for each wrote them.
OLDER = {
    "asked.db": """
CREATE TABLE runs (digest VARCHAR(64) NOT NULL, run VARCHAR(63) NOT NULL, PRIMARY KEY (digest, run));
CREATE TABLE runs_of_data_set (coordinator VARCHAR(64) NOT NULL, data_set VARCHAR(64) NOT NULL,
  digest VARCHAR(64) NOT NULL, run VARCHAR(63) NOT NULL, PRIMARY KEY (coordinator, data_set, digest, run));
CREATE TABLE models (digest VARCHAR(64) NOT NULL, run VARCHAR(63) NOT NULL, fold INTEGER NOT NULL,
  round INTEGER NOT NULL, model VARCHAR(64) NOT NULL, PRIMARY KEY (digest, run, fold, round));
""",
    f"accounts/{ACCOUNT}/thresholds.db": """
CREATE TABLE compared (run VARCHAR(128) NOT NULL, "column" VARCHAR(63) NOT NULL, members VARCHAR(64) NOT NULL,
  PRIMARY KEY (run, "column"));
CREATE TABLE values_tried (run VARCHAR(128) NOT NULL, "column" VARCHAR(63) NOT NULL, value FLOAT NOT NULL,
  answered BOOLEAN NOT NULL, PRIMARY KEY (run, "column", value));
CREATE TABLE iterates (step VARCHAR(128) NOT NULL, members VARCHAR(64) NOT NULL, exchange VARCHAR(63) NOT NULL,
  digest VARCHAR(64) NOT NULL, PRIMARY KEY (step, members, exchange, digest));
CREATE TABLE lines (run VARCHAR(63) NOT NULL, slope FLOAT NOT NULL, intercept FLOAT NOT NULL, PRIMARY KEY (run));
""",
    f"accounts/{ACCOUNT}/given-grids.db": """
CREATE TABLE given_years (patients VARCHAR(64) NOT NULL, time VARCHAR(128) NOT NULL, years VARCHAR NOT NULL,
  PRIMARY KEY (patients, time));
CREATE TABLE time_grids (patients VARCHAR(64) NOT NULL, time VARCHAR(128) NOT NULL, years FLOAT NOT NULL,
  PRIMARY KEY (patients, time));
""",
    f"state/{DIGEST}/table-grids.db": """
CREATE TABLE paths (run VARCHAR(128) NOT NULL, ends VARCHAR NOT NULL, following INTEGER NOT NULL,
  told VARCHAR NOT NULL, PRIMARY KEY (run));
CREATE TABLE given (id INTEGER NOT NULL, ends VARCHAR NOT NULL, PRIMARY KEY (id));
""",
}


def older(home: Path, name: str, *rows: tuple[str, tuple[object, ...]], open_: bool = False) -> sqlite3.Connection:
    """An older file with these rows, each with its table; left open, its rows are in the write-ahead log only."""
    file = home / name
    file.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(file)
    connection.executescript("PRAGMA journal_mode = WAL;" + OLDER[name])
    for table, row in rows:
        connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    connection.commit()
    if not open_:
        connection.close()
    return connection


def taken_over(home: Path) -> Path:
    take_over_older_accounts(home, lock_wait_s=1.0)
    return home


def counts(home: Path, table: str) -> int:
    connection = sqlite3.connect(home / ACCOUNTS_FILE)
    try:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("open_", [False, True], ids=["closed", "in the write-ahead log"])
def test_runs_and_models_count_on(tmp_path: Path, open_: bool) -> None:
    began = ("runs", (DIGEST, "r1")), ("runs_of_data_set", (COORDINATOR, "chest", DIGEST, "r1"))
    connection = older(tmp_path, "asked.db", *began, ("models", (DIGEST, "r1", 0, 1, "d" * 64)), open_=open_)
    limits = RunLimits(taken_over(tmp_path))
    request = Request(kind=TRAIN, digest=DIGEST, run="r1", round=1)
    of_data_set = {"coordinator": COORDINATOR, "data_set": "chest", "at_most_in_all": 1}
    limits.begin_run(request, at_most=1, **of_data_set)
    for other in (Request(kind=TRAIN, digest=DIGEST, run="r2"), Request(kind=TRAIN, digest="cd" * 32, run="r1")):
        with pytest.raises(RequestRefused):
            limits.begin_run(other, at_most=1, **of_data_set)
    limits.bring_model(request, model="d" * 64)
    with pytest.raises(RequestRefused):
        limits.bring_model(request, model="e" * 64)
    connection.close()


@pytest.mark.parametrize("apart", [1, 2, MINIMUM])
def test_a_threshold_near_one_that_an_earlier_release_answered_is_refused(tmp_path: Path, apart: int) -> None:
    patients = cohort()
    first = float(patients["age_years"].mean())
    members = Thresholds(tmp_path, run="r", minimum_count=MINIMUM)._members(patients, TEST.subset)
    name = f"accounts/{ACCOUNT}/thresholds.db"
    older(tmp_path, name, ("compared", ("", "age_years", members)), ("values_tried", ("", "age_years", first, 1)))
    account = Thresholds(taken_over(tmp_path), account=ACCOUNT, run="r", minimum_count=MINIMUM)
    account.require(TEST, patients, mean_age(first))
    near = mean_age(between(patients["age_years"], from_years=first, patients=apart))
    if apart == MINIMUM:
        account.require(TEST, patients, near)
    else:
        with pytest.raises(Withheld, match="threshold"):
            account.require(TEST, patients, near)
    of_another = Thresholds(tmp_path, account="another", run="r", minimum_count=MINIMUM)
    of_another.require(TEST, patients, near)


def test_a_runs_bias_line_stays_the_only_one(tmp_path: Path) -> None:
    older(tmp_path, f"accounts/{ACCOUNT}/thresholds.db", ("lines", ("r", 0.9, 3.0)))
    account = Thresholds(taken_over(tmp_path), account=ACCOUNT, run="r", minimum_count=MINIMUM)
    account.require_line(slope=0.9, intercept=3.0)
    with pytest.raises(Withheld, match="bias line"):
        account.require_line(slope=0.9, intercept=3.001)


@pytest.mark.parametrize("by", ["the campaign", "the data set", "both"])
def test_the_intervals_of_tables_given_before_stay_the_only_ones(tmp_path: Path, by: str) -> None:
    if by != "the data set":
        older(tmp_path, f"state/{DIGEST}/table-grids.db", ("given", (1, "11 35")), ("paths", ("r", "11 35", 36, "")))
    if by != "the campaign":
        years = " ".join(repr(CURVES.times[end]) for end in (11, 35))
        older(tmp_path, f"accounts/{ACCOUNT}/given-grids.db", ("given_years", ("p", CURVES.time, years)))
    campaign = "another" if by == "the data set" else DIGEST
    grids = TableGrids(
        taken_over(tmp_path), campaign=campaign, run="s", minimum_count=10, account=ACCOUNT, patients="p"
    )
    for ends in ((11, 35), (35,)):
        grids.accounted(CURVES, tables(ends))
    for ends in ((12, 35), (11, 23), (23,)):
        with pytest.raises(Withheld, match="other intervals"):
            grids.accounted(CURVES, tables(ends))


def test_it_is_taken_over_once_whoever_opens_the_home_and_however_often(tmp_path: Path) -> None:
    older(tmp_path, "asked.db", ("runs", (DIGEST, "r1")), ("runs", (DIGEST, "r2")))
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(taken_over, [tmp_path] * 4))) == 4
    RunLimits(tmp_path).begin_run(
        Request(kind=TRAIN, digest=DIGEST, run="r3"),
        at_most=3,
        coordinator=COORDINATOR,
        data_set="chest",
        at_most_in_all=9,
    )
    taken_over(tmp_path)
    assert (counts(tmp_path, "runs"), counts(tmp_path, "taken_over")) == (3, 1)
    older(tmp_path, f"accounts/{ACCOUNT}/thresholds.db", ("lines", ("r", 0.9, 3.0)))  # restored later
    assert counts(taken_over(tmp_path), "lines") == 1


def test_a_file_of_a_still_earlier_release_with_fewer_tables_is_taken_over(tmp_path: Path) -> None:
    older(tmp_path, "asked.db", ("runs", (DIGEST, "r1"))).close()
    connection = sqlite3.connect(tmp_path / "asked.db")
    connection.execute("DROP TABLE runs_of_data_set")
    connection.close()
    assert counts(taken_over(tmp_path), "runs") == 1


@pytest.mark.parametrize("name", OLDER)
def test_a_site_whose_older_file_is_damaged_does_not_open_and_says_which(tmp_path: Path, name: str) -> None:
    older(tmp_path, name)
    for damaged in (tmp_path / name, *tmp_path.glob(f"{name}-*")):
        damaged.write_bytes(b"not a database" * 500)
    with pytest.raises(AccountsUnavailable, match=rf"{Path(name).name} in .*restore it from a backup"):
        SiteRules(tmp_path, coordinator=COORDINATOR, lock_wait_s=1.0)
    assert counts(tmp_path, "taken_over") == 0


@pytest.mark.parametrize("change", ["RENAME COLUMN run TO name", "ADD COLUMN more INTEGER", "DROP COLUMN digest"])
def test_a_file_of_another_form_is_refused_and_not_read_in_part(tmp_path: Path, change: str) -> None:
    name = f"accounts/{ACCOUNT}/thresholds.db"
    older(tmp_path, "asked.db", ("runs", (DIGEST, "r1")))
    older(tmp_path, name, ("lines", ("r", 0.9, 3.0)))
    connection = sqlite3.connect(tmp_path / name)
    table = "lines" if "digest" not in change else "iterates"
    if table == "iterates":  # a column of a primary key cannot be dropped
        connection.executescript(
            "DROP TABLE iterates; CREATE TABLE iterates (step VARCHAR); INSERT INTO iterates VALUES ('s')"
        )
    else:
        connection.execute(f"ALTER TABLE {table} {change}")
    connection.commit()
    connection.close()
    with pytest.raises(AccountsUnavailable, match=f"table {table} is not of the form"):
        taken_over(tmp_path)
    assert counts(tmp_path, "runs") == counts(tmp_path, "taken_over") == 0


def test_a_home_without_older_files_gets_none(tmp_path: Path) -> None:
    taken_over(tmp_path)
    assert list(tmp_path.iterdir()) == []
