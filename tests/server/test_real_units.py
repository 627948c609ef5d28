"""Covariates in the units that hospitals write, through `fedage simulate` and through deployed sites' message path.

A volume in mm³ or microlitres, a lesion in cubic metres, an income, a year, a time stamp: nobody is dropped for a
covariate's size, hazard ratios are those of a survival package, group differences those of least squares.
"""

from __future__ import annotations

import html
import io
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from rich.console import Console

from fedage.client.cli.index import index_site
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import init_site
from fedage.common.analyses.groups import result
from fedage.common.analyses.survival import results as survival_results
from fedage.common.analyses.survival._cox_compared import covariates
from fedage.common.analyses.survival.results import Coefficient
from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.cli.summary import print_summary
from fedage.server.compare.runs import load_runs
from fedage.server.record.results import Results, read_results, write_results
from fedage.server.report.render import render_report
from fedage.server.superlink.grid import PollingGrid
from fedage.server.superlink.home import init_home
from tests.deploy.simulating import as_csv, simulated
from tests.machinery import InProcessGrid

COVARIATES = ("brain_mm3", "ventricle_ul", "lesion_m3", "income", "scan_year", "scanned_s", "dose_bq", "balance")
SITES = {"north": 130, "south": 170, "west": 100}


def model_name(covariate: str, kind: str) -> str:
    return f"{covariate.replace('_', '-')}-{kind}"


MODELS = "\n".join(
    f"""
[[survival.models]]
name = "{model_name(name, kind)}"
covariates = ["{name}", "age"]
by_site = {str(kind == "by-site").lower()}
"""
    for name in COVARIATES
    for kind in ("by-site", "pooled")
)


def text(*, guard: bool, times: list[float], minimum: int) -> str:
    models = MODELS if not guard else MODELS.replace("by_site = false", "by_site = true")
    return f"""
[campaign]
name = "real-units"
purpose = "Hazard ratios of covariates in the units that hospitals write"
seed = 5
[table]
id = "who"
age = "age"
[simulation]
guard = {str(guard).lower()}
[privacy]
minimum_count = {minimum}
[survival]
time = "years"
event = "died"
time_grid_years = 0.25
table_times_years = {times}
{models}
[groups]
column = "ill"
equals = 1
reference = 0
covariates = ["brain_mm3", "income", "scan_year", "lesion_m3"]
"""


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    n = sum(SITES.values())
    z = {name: rng.normal(size=n) for name in COVARIATES}
    age = rng.uniform(45, 85, n).round(2)
    ill = (rng.random(n) < 0.45).astype(int)
    hazard = 0.12 * np.exp(0.03 * (age - 65) + sum(0.25 * (-1) ** k * z[name] for k, name in enumerate(COVARIATES)))
    died, left = rng.exponential(1 / hazard), rng.uniform(2, 14, n)
    return pd.DataFrame(
        {
            "who": [f"P{k:04d}" for k in range(n)],
            "hospital": np.repeat(list(SITES), list(SITES.values())),
            "age": age,
            "brain_mm3": (1.2e6 + 1.1e5 * z["brain_mm3"]).round(0),
            "ventricle_ul": np.exp(10.3 + 0.4 * z["ventricle_ul"]).round(1),
            "lesion_m3": 4e-6 + 4e-7 * z["lesion_m3"],
            "income": (52_000 + 14_000 * z["income"]).round(0),
            "scan_year": 2021.0 + np.clip(np.round(3 * z["scan_year"]), -9, 4),
            "scanned_s": (1.61e9 + 9e7 * z["scanned_s"]).round(0),
            "dose_bq": (3.7e8 + 4e7 * z["dose_bq"]).round(0),
            "balance": (-3e6 + 8e5 * z["balance"]).round(2),
            "ill": ill,
            "gap_years": (2.2 * ill + 1.4 * z["brain_mm3"] - 0.8 * z["scan_year"] + rng.normal(0, 3, n)).round(4),
            "years": np.ceil(np.minimum(died, left) * 4) / 4,
            "died": (died <= left).astype(int),
        }
    )


@pytest.fixture(scope="module")
def unguarded(patients: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("simulated")
    times = [float(time) for time in sorted(patients.years.unique())]
    data = as_csv(patients, folder / "patients.csv")
    return simulated(folder, text(guard=False, times=times, minimum=1), data=data, site_column="hospital").results


@pytest.fixture(scope="module")
def deployed(patients: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Three homes as administrators make them, and a coordinator whose requests they check; minimum count 10."""
    folder = tmp_path_factory.mktemp("deployed")
    coordinator = init_home(folder / "coordinator", hosts=("localhost",))
    campaign = parse_campaign(text(guard=True, times=[2.0, 4.0, 8.0], minimum=10))
    sites = []
    for name in SITES:
        table = as_csv(patients[patients.hospital == name].drop(columns="hospital"), folder / name / "table.csv")
        home = init_site(
            folder / name / "home",
            name=name,
            coordinator="localhost:8443",
            ca_certificate=coordinator.ca_certificate,
            coordinator_public_key=coordinator.signing_public_key,
        )
        with (home.root / "site.toml").open("a") as settings:
            settings.write(f'[table]\npath = "{table}"\nid = "who"\n')
        assert index_site(home.root).patients == SITES[name]
        site = DeployedSite.load(home.root)
        site.rules.approve(campaign)
        sites.append(site)
    grid = InProcessGrid(sites)
    place = Place(folder=folder / "run", run="r1", environment="deployment", guard=True, sites_there=len(sites))
    conduct(PollingGrid(grid, poll_s=0.001), campaign, place, key=coordinator.signing_key(), admitted=grid.names)
    return read_results(folder / "run" / "results.json")


def survival_package(patients: pd.DataFrame, name: str, *, by_site: bool) -> CoxPHFitter:
    """Its fit with the covariate standardised, as it stops at an absolute precision."""
    column = patients[name]
    table = patients[["age", "years", "died"]].assign(x=(column - column.mean()) / column.std())
    if by_site:
        table["hospital"] = patients.hospital
    return CoxPHFitter().fit(
        table, "years", "died", strata=["hospital"] if by_site else None, fit_options={"precision": 1e-12}
    )


def coefficient(results: Results, model: str, covariate: str) -> Coefficient:
    assert survival_results.survival(results) is not None
    found = next(item for item in survival_results.survival(results).cox if item.model == model)
    assert found.not_computed in (None, ""), found.not_computed
    assert found.n == sum(SITES.values())
    assert found.sites == tuple(SITES)
    return next(item for item in found.covariates if item.name == covariate)


def must_agree(found: Coefficient, oracle: CoxPHFitter, sd: float) -> None:
    low, high = np.exp(oracle.confidence_intervals_.loc["x"])
    assert found.coef is not None
    assert found.se is not None
    assert found.coef * sd == pytest.approx(oracle.params_["x"], rel=1e-6, abs=1e-8)
    assert found.se * sd == pytest.approx(oracle.standard_errors_["x"], rel=1e-6)
    assert found.sd == pytest.approx(sd, rel=1e-9)
    assert found.hazard_ratio_per_sd == pytest.approx(np.exp(oracle.params_["x"]), rel=1e-6)
    assert (found.ci95_per_sd_low, found.ci95_per_sd_high) == pytest.approx((low, high), rel=1e-6)


@pytest.mark.parametrize("name", COVARIATES)
@pytest.mark.parametrize("kind", ["by-site", "pooled"])
def test_a_simulation_gives_the_hazard_ratio_of_a_survival_package(
    unguarded: Results, patients: pd.DataFrame, name: str, kind: str
) -> None:
    oracle = survival_package(patients, name, by_site=kind == "by-site")
    found = coefficient(unguarded, model_name(name, kind), name)
    must_agree(found, oracle, patients[name].std())
    age = coefficient(unguarded, model_name(name, kind), "age")
    assert age.coef == pytest.approx(oracle.params_["age"], rel=1e-6)


@pytest.mark.parametrize("name", COVARIATES)
def test_deployed_sites_give_it_too_and_drop_nobody(deployed: Results, patients: pd.DataFrame, name: str) -> None:
    oracle = survival_package(patients, name, by_site=True)
    must_agree(coefficient(deployed, model_name(name, "by-site"), name), oracle, patients[name].std())
    assert [site.patients for site in deployed.sites] == list(SITES.values())


@pytest.mark.parametrize("which", ["unguarded", "deployed"])
def test_the_difference_of_groups_is_that_of_least_squares(
    request: pytest.FixtureRequest, patients: pd.DataFrame, which: str
) -> None:
    results: Results = request.getfixturevalue(which)
    assert result.groups(results) is not None
    found = result.groups(results).corrected.adjusted
    assert found is not None
    assert (result.groups(results).corrected.n_group, result.groups(results).corrected.n_reference) == (
        int((patients.ill == 1).sum()),
        int((patients.ill == 0).sum()),
    )
    x = patients[["brain_mm3", "income", "scan_year", "lesion_m3"]]
    design = np.column_stack(
        [patients.ill, (x - x.mean()) / x.std(), pd.get_dummies(patients.hospital).to_numpy(dtype=float)]
    )
    beta, *_ = np.linalg.lstsq(design, patients.gap_years.to_numpy(), rcond=None)
    assert found.difference_years == pytest.approx(beta[0], rel=1e-6)
    assert beta[0] == pytest.approx(2.2, abs=1.0)


def as_told(patients: pd.DataFrame, name: str, *, by_site: bool) -> str:
    """The ratio per SD and its interval, as the survival package gives them for the standardised column."""
    oracle = survival_package(patients, name, by_site=by_site)
    low, high = np.exp(oracle.confidence_intervals_.loc["x"])
    return f"{np.exp(oracle.params_['x']):.3f} ({low:.3f} to {high:.3f})"


PER_SD = tuple(name for name in COVARIATES if name != "scan_year")


@pytest.mark.parametrize("name", PER_SD)
@pytest.mark.parametrize("kind", ["by-site", "pooled"])
def test_the_forest_plot_tells_it_per_sd(unguarded: Results, patients: pd.DataFrame, name: str, kind: str) -> None:
    page = html.unescape(render_report(unguarded))
    label = re.search(r"Hazard ratios with 95 % intervals: [^\"]*", page)
    assert label is not None
    told = as_told(patients, name, by_site=kind == "by-site")
    rows = [row for row in label[0].split("; ") if row.endswith(f", per SD {told}")]
    assert len(rows) == 1
    assert f">{told}</td>" in page
    assert "scan-year-by-site: scan_year 1.0" in label[0]  # a year stays a year
    assert "per standard deviation (SD) where the unit is small or large against it" in page


def test_the_terminal_and_the_first_screen_tell_it_per_sd(unguarded: Results, patients: pd.DataFrame) -> None:
    said = io.StringIO()
    print_summary(unguarded, console=Console(file=said, width=240))
    for name in PER_SD:
        for kind in ("by-site", "pooled"):
            assert f"; per SD {as_told(patients, name, by_site=kind == 'by-site')}" in said.getvalue()
    ratio, within = as_told(patients, "brain_mm3", by_site=True).split(" ", 1)
    page = html.unescape(render_report(unguarded))
    assert f"{ratio} per standard deviation of brain_mm3 (95 % interval {within[1:]}" in page


def test_runs_in_two_units_are_compared_per_sd(unguarded: Results, patients: pd.DataFrame, tmp_path: Path) -> None:
    """One campaign in mm³, the other in litres of the same brains: per unit 1.000 and 20, per SD the same."""
    write_results(tmp_path / "a" / "results.json", unguarded)
    litres = patients.assign(brain_mm3=patients.brain_mm3 / 1e6)
    times = [float(time) for time in sorted(patients.years.unique())]
    data = as_csv(litres, tmp_path / "litres.csv")
    other = simulated(
        tmp_path / "work", text(guard=False, times=times, minimum=1), data=data, site_column="hospital"
    ).results
    write_results(tmp_path / "b" / "results.json", other)
    found = covariates(load_runs([tmp_path / "a", tmp_path / "b"]))
    brains = [row for row in found.rows if row[0].text == "brain_mm3"]
    assert len(brains) == 4
    for row in brains:
        by_site = row[3].text == "each site its own"
        assert f"{row[4].text} ({row[5].text})" == as_told(patients, "brain_mm3", by_site=by_site)
        assert row[6].text.startswith("SD")
    ages = [row for row in found.rows if row[0].text == "age"]
    assert {row[6].text for row in ages} == {"unit"}
