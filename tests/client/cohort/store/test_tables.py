"""A site's own table: into the store, and from it the cohort that a simulation of the same table has."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.selection.parts import parts_for_fold
from fedage.client.cohort.selection.table_cohorts import table_cohort
from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import TableReport, forget_table, index_table, read_table
from fedage.client.cohort.table.site_table import read_site_table, write_site_table
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.consent.policy.types import DataSet
from fedage.client.consent.site_cohorts import SiteCohorts
from fedage.client.site.mapping import Mapped, TableSource
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.campaign import Campaign
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import RequestRefused
from tests.of_estimators import preparation

SEED = 7
HEAD = f"""
[campaign]
name = "tables"
purpose = "Ask three tables together"
seed = {SEED}
[table]
id = "who"
age = "age"
sex = "sex"
missing = [-9999]
"""
ANALYSES = (
    HEAD
    + """predicted = "told"
[cohort]
age_min_years = 25
[survival]
table_times_years = [1, 2, 3]
curves_by = "is_male"
[[survival.models]]
name = "crude"
covariates = ["raw_gap_years", "is_male"]
[groups]
column = "dx"
equals = 1
reference = 0
[privacy]
minimum_count = 1
"""
)
TRAINED = (
    HEAD
    + """
[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
exclude = ["hospital", "time_years", "event", "dx", "told"]
add_sex = true
[cohort]
age_max_years = 75
[validation]
folds = 3
[privacy]
# The sites are as small as the test: what the influence rule withholds from them has its own tests.
patients_per_column = 0
largest_share = 1
"""
)


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(SEED)
    n = 180
    age = rng.uniform(20, 80, n).round(2)
    return pd.DataFrame(
        {
            "who": [f"MRN-{number:04d}" for number in range(n)],
            "hospital": rng.choice(["a", "b", "c"], n),
            "age": age,
            "sex": rng.choice(["M", "F", "male", ""], n),
            "told": (age + rng.normal(0, 5, n)).round(3),
            "dx": rng.integers(0, 2, n),
            "time_years": rng.exponential(3, n).round(3),
            "event": rng.integers(0, 2, n),
            "thick": np.where(rng.random(n) < 0.1, "oops", rng.normal(2, 1, n).round(4).astype(str)),
            "area": np.where(rng.random(n) < 0.1, -9999, rng.normal(5, 1, n).round(4)),
            "ward": "north",
        }
    )


def deployed(folder: Path, table: pd.DataFrame, *, key: bytes, **settings: Any) -> tuple[Path, TableReport]:
    """A home with this table indexed."""
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False)
    source = TableSource(path=str(folder / "table.csv"), **{"id": "who", **settings})
    with CohortStore.open(folder / "home", key=key) as store:
        report = index_table(store, source)
    return folder / "home", report


def sites_both_ways(tmp_path: Path, campaign: Campaign) -> tuple[dict[str, SiteCohort], dict[str, SiteCohort]]:
    """The same three sites simulated and deployed, with the simulation's key, so that the splits are the same."""
    whole, key = frame(), hashlib.sha256(f"simulation {SEED}".encode()).digest()
    whole.to_csv(tmp_path / "whole.csv", index=False)
    simulated, real = {}, {}
    for name, table in read_site_tables(tmp_path / "whole.csv", campaign, site_column="hospital").sites.items():
        write_site_table(tmp_path / "simulated" / name, table)
        simulated[name] = table_cohort(read_site_table(tmp_path / "simulated" / name), campaign)
        mine = whole[whole["hospital"] == name]
        home, _ = deployed(tmp_path / "real" / name, mine, key=key, leave_out=("hospital",))
        real[name] = SiteCohorts(home).read(campaign)
    return simulated, real


def same(one: Any, other: Any) -> None:
    """Nested results, equal up to the order of summation."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            same(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for mine, theirs in zip(one, other, strict=True):
            same(mine, theirs)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)
    else:
        assert one == other


def test_simulated_and_deployed_sites_give_the_same_results(tmp_path: Path) -> None:
    campaign = parse_campaign(ANALYSES)
    simulated, real = sites_both_ways(tmp_path, campaign)
    assert sorted(simulated) == ["a", "b", "c"]
    computed = 0
    for name, analysis in registered(campaign).items():
        mine = run_locally(analysis, {site: found.cohort for site, found in simulated.items()})
        theirs = run_locally(analysis, {site: found.cohort for site, found in real.items()})
        assert type(mine) is type(theirs), name
        if isinstance(mine, Done) and isinstance(theirs, Done):
            same(dict(mine.result), dict(theirs.result))
            computed += 1
    assert computed >= 5
    for site, found in simulated.items():
        assert found.excluded == real[site].excluded
        assert found.excluded["age-outside-cohort"] > 0
        assert found.rejected_files == real[site].rejected_files
        assert found.features == real[site].features


def test_simulated_and_deployed_sites_train_on_the_same_sums(tmp_path: Path) -> None:
    campaign = parse_campaign(TRAINED)
    simulated, real = sites_both_ways(tmp_path, campaign)
    analysis = preparation(campaign, ("area", "thick"))
    assert analysis is not None
    results = [
        run_locally(analysis, {name: parts_for_fold(found.cohort, campaign, 0) for name, found in way.items()})
        for way in (simulated, real)
    ]
    assert isinstance(results[0], Done)
    assert isinstance(results[1], Done)
    same(dict(results[0].result), dict(results[1].result))
    for name, found in simulated.items():
        of_real = real[name].samples
        assert found.samples is not None
        assert of_real is not None
        mine, theirs = found.samples["row"], of_real["row"]
        assert mine.shape == theirs.shape == (found.cohort.n, 3)
        by_age = [np.argsort(way[name].cohort["age_years"], kind="stable") for way in (simulated, real)]
        np.testing.assert_array_equal(mine[by_age[0]], theirs[by_age[1]])
        for column in ("age_years", "is_male", "fold", "healthy"):
            np.testing.assert_array_equal(
                found.cohort[column][by_age[0]], real[name].cohort[column][by_age[1]], err_msg=column
            )
        assert list(real[name].keys) == sorted(real[name].keys)
        assert len(real[name].keys) == real[name].cohort.n


def test_what_the_site_calls_its_columns_is_mapped_to_what_the_campaign_does(tmp_path: Path) -> None:
    table = frame()
    mine = table.rename(columns={"age": "Alter", "sex": "Geschlecht", "time_years": "fu days", "event": "status"})
    mine["fu days"] *= 365.25
    mine["status"] = mine["status"].map({0: "alive", 1: "Dead"})
    mine["Geschlecht"] = mine["Geschlecht"].str.upper().str[:1].map({"M": 11, "F": 22})
    key, campaign = bytes(range(32)), parse_campaign(ANALYSES)
    plain, _ = deployed(tmp_path / "plain", table, key=key)
    mapped, report = deployed(
        tmp_path / "mapped",
        mine,
        key=key,
        age="Alter",
        sex="Geschlecht",
        male=11.0,
        female=22.0,
        columns={
            "time_years": Mapped(column="fu days", divide_by=365.25),
            "event": Mapped(column="status", values={"dead": 1, "alive": 0}),
        },
    )
    one, other = SiteCohorts(plain).read(campaign), SiteCohorts(mapped).read(campaign)
    assert one.keys == other.keys
    assert one.features == other.features
    for name in one.cohort.columns:
        np.testing.assert_allclose(one.cohort[name], other.cohort[name], rtol=1e-12, err_msg=name)
    assert report.rejected["not-a-number:thick"] == int((table["thick"] == "oops").sum())
    raw = b"".join(path.read_bytes() for path in mapped.iterdir() if path.is_file())
    assert b"MRN-" not in raw


@pytest.mark.parametrize("blank", [None, "", "NA"])
@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("mapping", [{"values": {"2": 1, "1": 0}}, {"values": {"2": 1}, "others": 0}])
def test_codes_are_mapped_though_a_cell_is_blank(
    tmp_path: Path, blank: str | None, suffix: str, mapping: dict[str, Any]
) -> None:
    """A blank cell makes 2 the number 2.0, which was no word of the mapping: nobody had the event."""
    status: list[Any] = [1, 2, 2, 1, None, 2] if suffix == "parquet" else [1, 2, 2, 1, blank, 2]
    table = pd.DataFrame({"who": list("abcdef"), "age": [40.5, 50, 60, 70, 80, 45], "status": status})
    path = tmp_path / f"t.{suffix}"
    table.to_parquet(path) if suffix == "parquet" else table.to_csv(path, index=False)
    source = TableSource(
        path=str(path), id="who", age="age", columns={"event": Mapped.model_validate({"column": "status", **mapping})}
    )
    with CohortStore.open(tmp_path / "home", key=bytes(range(32))) as store:
        index_table(store, source)
        stored = read_table(store)
    assert stored is not None
    by_age = dict(zip(stored.frame["age"], stored.frame["event"], strict=True))
    assert [by_age[age] for age in (40.5, 50, 60, 70, 45)] == [0, 1, 1, 0, 1]
    assert np.isnan(by_age[80])


def test_bad_rows_and_cells_are_counted(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"who": ["a", "b", "", "a", "c"], "age": [30, "x", 40, 50, -9999], "sex": ["m", "q", "m", "f", "f"]}
    )
    home, report = deployed(tmp_path, table, key=bytes(32), age="age", sex="sex", missing=(-9999.0,))
    assert (report.patients, report.columns, report.unchanged) == (3, 2, False)
    assert report.rejected == {
        "row-without-id": 1,
        "patient-twice-at-site": 1,
        "not-a-number:age": 1,
        "neither-sex:sex": 1,
    }
    with CohortStore.open(home) as store:
        stored = read_table(store)
        assert stored is not None
        by_key = dict(zip(stored.keys, stored.frame.to_dict("records"), strict=True))
        assert by_key[store.patient_key("a")] == {"age": 30.0, "sex": "m"}
        assert by_key[store.patient_key("b")] == {"age": "?", "sex": "?"}
        assert stored.rejected == {"row-without-id": 1, "patient-twice-at-site": 1}


def test_only_a_changed_table_is_read_again(tmp_path: Path) -> None:
    table = frame()
    home, _ = deployed(tmp_path, table, key=bytes(32))
    before = SiteCohorts(home).read(parse_campaign(ANALYSES))
    home, again = deployed(tmp_path, table, key=bytes(32), leave_out=("ward",))
    assert not again.unchanged  # other settings
    source = TableSource(path=str(tmp_path / "table.csv"), id="who", leave_out=("ward",))
    with CohortStore.open(home) as store:
        assert index_table(store, source).unchanged
    more = pd.concat([table, table.iloc[:1].assign(who="new", age=44.0)])
    deployed(tmp_path, more, key=bytes(32), leave_out=("ward",))
    after = SiteCohorts(home).read(parse_campaign(ANALYSES))
    assert after.cohort.n == before.cohort.n + 1
    assert set(before.keys) < set(after.keys)
    with CohortStore.open(home) as store:
        forget_table(store)
        assert read_table(store) is None
    with pytest.raises(RequestRefused, match="no table indexed") as refused:
        SiteCohorts(home).read(parse_campaign(ANALYSES))
    assert refused.value.rule == "no-table"


def test_dates_and_text_are_not_kept(tmp_path: Path) -> None:
    table = pd.DataFrame({"who": [1, 2], "seen": pd.to_datetime(["2020-01-02", "2021-03-04"]), "note": ["Ann", "Bob"]})
    table.to_parquet(tmp_path / "t.parquet")
    with CohortStore.open(tmp_path / "home", key=bytes(32)) as store:
        index_table(store, TableSource(path=str(tmp_path / "t.parquet"), id="who"))
        stored = read_table(store)
        assert stored is not None
        assert stored.frame.to_dict("list") == {"note": ["?", "?"]}
    assert b"Ann" not in (tmp_path / "home/cohort.db").read_bytes()


def test_policy_and_frozen_cohorts_narrow(tmp_path: Path) -> None:
    table = frame()
    table.loc[3, "age"] = np.nan
    home, _ = deployed(tmp_path, table, key=bytes(32))
    campaign, sites = parse_campaign(ANALYSES), SiteCohorts(home)
    everybody = sites.read(campaign)
    assert everybody.cohort.n == sites.count(campaign) == int((~(table["age"] < 25)).sum())
    older = sites.read(campaign, data_set=DataSet(age_min_years=50))
    assert older.cohort.n == int((table["age"] >= 50).sum())
    assert older.excluded["no-age"] == 1
    few = sites.read(campaign, patients=frozenset(older.keys[:20]))
    assert few.keys == older.keys[:20]
    np.testing.assert_array_equal(few.cohort["age_years"], older.cohort["age_years"][:20])
    for data_set in (DataSet(modality=("CR",)), DataSet(manufacturer=("GE",))):
        with pytest.raises(RequestRefused, match="contains images"):
            sites.read(campaign, data_set=data_set)


@pytest.mark.parametrize(
    ("change", "rule", "says"),
    [
        (("curves_by", 'time = "fu"\ncurves_by'), "no-column", "no column 'fu'$"),
        (('sex = "sex"', 'sex = "dx"\nmale = 5'), "sex-codes", "male and female"),
        (('age = "age"', 'age = "AGE"'), "no-column", "no column 'AGE'"),
    ],
)
def test_what_the_table_lacks_is_refused_by_rule(tmp_path: Path, change: tuple[str, str], rule: str, says: str) -> None:
    home, _ = deployed(tmp_path, frame(), key=bytes(32))
    with pytest.raises(RequestRefused, match=says) as refused:
        SiteCohorts(home).read(parse_campaign(ANALYSES.replace(*change)))
    assert refused.value.rule == rule


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"id": "MRN"}, r"no column 'MRN' \(it has 11 columns.*correct \[table\]"),
        ({"age": "Alter"}, "no column 'Alter'"),
        ({"columns": {"area": "thick"}}, "has the column 'area' itself"),
        ({"columns": {"x": "who"}}, "'who' more than one part"),
        ({"age": "age", "columns": {"x": "age"}}, "'age' more than one part"),
        ({"age": "age", "sex": "age"}, "'age' more than one part"),
        ({"columns": {"x": Mapped(column="thick", rows="max")}}, "one row a patient"),
    ],
)
def test_settings_that_do_not_fit_the_table_are_refused(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(FedAgeError, match=says):
        deployed(tmp_path, frame(), key=bytes(32), **settings)
