"""Whether hazards are proportional: against lifelines, under the guard, and from campaign file to comparison."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.statistics import proportional_hazard_test
from rich.console import Console

from fedage.client.compute.contribute import contributions
from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.analyses.survival.proportional_hazards import ANALYSIS, HazardsTest, ProportionalHazards, _slope
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRule
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.server.cli.summary import print_summary
from fedage.server.compare.comparison import compare
from fedage.server.compare.page import render_comparison
from fedage.server.compare.runs import load_runs
from fedage.server.compare.table import print_comparison
from fedage.server.record.results import read_results
from fedage.server.report import render_report
from tests.deploy.simulating import Simulated, as_csv, simulated

TRANSFORMS = {"identity": "identity", "log1p": lambda times, _events, _weights: np.log1p(times)}
CAMPAIGN = """
[campaign]
name = "effects"
purpose = "Do effects change with follow-up"

seed = 1
[table]
id = "subject"
age = "age"

[survival]
time_grid_years = 0
models = [{ name = "first", covariates = ["age_years", "marker"] }, { name = "second", covariates = ["marker"] }]

[analyses.proportional-hazards]
"""


def step_of(covariates: tuple[str, ...], *, transform="identity", rule=None, **options) -> ProportionalHazards:
    cox = CoxBySite("cox:m", covariates, subset=None, **options)
    return ProportionalHazards(
        "proportional-hazards:m", cox if rule is None else Agreed(cox, rule=rule), cox, transform=transform
    )


def of_lifelines(frame: pd.DataFrame, transform: str, **columns) -> pd.DataFrame:
    fitted = CoxPHFitter().fit(frame, fit_options={"precision": 1e-12}, **columns)
    return proportional_hazard_test(fitted, frame, time_transform=TRANSFORMS[transform]).summary


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("data", ["lung", "rossi", "gbsg2"])
def test_as_lifelines_says_of_real_patients(data: str, transform: str, request, tools) -> None:
    """Tied deaths (rossi: weeks), 18 hospitals with strata of two patients (lung), and covariates of unlike units."""
    frame = request.getfixturevalue(data).dropna()
    columns = {
        "lung": ("time", "status", "inst", ("age", "sex")),
        "rossi": ("week", "arrest", "race", ("fin", "age", "prio")),
        "gbsg2": ("time", "cens", "menostat", ("age", "horTh", "pnodes", "tgrade_III")),
    }
    time, event, site, covariates = columns[data]
    frame = frame[[time, event, site, *covariates]]
    sites = {str(name): tools.cohort_of(rows) for name, rows in frame.groupby(site)}
    found = tools.result_of(step_of(covariates, transform=transform, time=time, event=event), sites)
    theirs = of_lifelines(frame, transform, duration_col=time, event_col=event, strata=[site])
    for covariate in found["covariates"]:
        for ours, name in (("chi2", "test_statistic"), ("p", "p")):
            assert covariate[ours] == pytest.approx(theirs.loc[covariate["name"], name], rel=1e-6, abs=1e-6)


def test_breslow_ties_and_strata_inside_a_site_by_a_slow_loop(rossi: pd.DataFrame, tools) -> None:
    covariates, frame = ("fin", "age"), rossi.assign(week=np.ceil(rossi.week / 4) * 4)
    step = step_of(covariates, time="week", event="arrest", strata=("race",), ties="breslow")
    sites = {str(name): tools.cohort_of(rows) for name, rows in frame.groupby("mar")}
    found, model = tools.result_of(step, sites), tools.result_of(step.cox, sites)
    beta = np.array([item["coef"] for item in model["covariates"]])
    residuals, times, information = [], [], np.zeros((2, 2))
    for _, rows in frame.groupby(["mar", "race"]):
        x, w = rows[list(covariates)].to_numpy(), np.exp(rows[list(covariates)].to_numpy() @ beta)
        for k in np.flatnonzero(rows.arrest):
            at_risk = (rows.week >= rows.week.iloc[k]).to_numpy()
            mean = np.average(x[at_risk], axis=0, weights=w[at_risk])
            information += np.cov(x[at_risk].T, aweights=w[at_risk], ddof=0)
            residuals.append(x[k] - mean)
            times.append(rows.week.iloc[k])
    g, variance = np.array(times) - np.mean(times), np.linalg.inv(information)
    scaled = len(times) * np.array(residuals) @ variance
    chi2 = (g @ scaled) ** 2 / (len(times) * np.diag(variance) * (g @ g))
    assert [item["chi2"] for item in found["covariates"]] == pytest.approx(list(chi2), rel=1e-6)
    # Of the scaled residuals against time: the least-squares line's slope.
    slope = [np.polyfit(times, scaled[:, k], 1)[0] for k in range(2)]
    assert [item["slope"] for item in found["covariates"]] == pytest.approx(slope, rel=1e-6)


def test_how_sites_are_split_or_patients_ordered_changes_nothing_beyond_rounding(rossi: pd.DataFrame, tools) -> None:
    step = step_of(("fin", "prio"), time="week", event="arrest", strata=("wexp",))
    whole = {"a": tools.cohort_of(rossi), "b": tools.cohort_of(rossi.assign(week=rossi.week + 1))}
    halves = {f"{wexp:g}": tools.cohort_of(rows) for wexp, rows in rossi.groupby("wexp")}
    halves["b"] = tools.cohort_of(rossi.assign(week=rossi.week + 1).sample(frac=1, random_state=3))
    one, other = tools.result_of(step, whole), tools.result_of(step, halves)
    assert one["chi2"] == pytest.approx(other["chi2"], rel=1e-8)


def test_nothing_is_said_without_deaths_or_of_deaths_at_one_time(rossi: pd.DataFrame, tools) -> None:
    step = step_of(("fin",), time="week", event="arrest")
    none = run_locally(step, {"a": tools.cohort_of(rossi.assign(arrest=0.0))})
    assert isinstance(none, NotComputable)
    at_once = run_locally(step, {"a": tools.cohort_of(rossi.assign(week=np.where(rossi.arrest == 1, 5.0, 9.0)))})
    assert isinstance(at_once, NotComputable)
    assert "one time" in at_once.reason


def test_at_coefficients_of_other_sites_nothing_is_said(rossi: pd.DataFrame, tools) -> None:
    step = step_of(("fin", "age"), time="week", event="arrest")
    sites = {"a": tools.cohort_of(rossi[:200]), "b": tools.cohort_of(rossi[200:])}
    model = run_locally(step.cox, sites)
    assert isinstance(model, Done)
    iterate = step.begin(model.result)
    assert isinstance(step.combine(tools.summed(step, sites, iterate), iterate), Done)
    without = step.combine(tools.summed(step, {"a": sites["a"]}, iterate), iterate)
    assert isinstance(without, NotComputable)
    assert "does not answer" in without.reason


def patients(*, seed: int = 4, each: int = 150) -> pd.DataFrame:
    """The marker's effect falls from 1.2 to nothing after a year; that of age is constant."""
    rng = np.random.default_rng(seed)
    n = 3 * each
    age, marker = rng.normal(60, 8, n), rng.integers(0, 2, n).astype(float)
    early = rng.exponential(1 / (0.25 * np.exp(1.2 * marker + 0.03 * (age - 60))))
    late = 1 + rng.exponential(1 / (0.35 * np.exp(0.03 * (age - 60))))
    time, censored = np.where(early < 1, early, late), rng.uniform(0.5, 6, n)
    columns = {"age": age, "marker": marker, "time_years": np.minimum(time, censored), "event": time <= censored}
    names = {"subject": range(n), "hospital": np.repeat(["north", "south", "west"], each)}
    return pd.DataFrame({**names, **columns}).astype({"event": float})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    folder = tmp_path_factory.mktemp("effects")
    data = as_csv(patients(), folder / "data.csv")
    return simulated(folder, CAMPAIGN, data=data, site_column="hospital")


def test_under_the_guard_it_is_what_lifelines_says_and_is_in_the_record(run: Simulated) -> None:
    step = run.results.analyses["proportional-hazards:first"]
    assert step.sites == ("north", "south", "west")
    found = step.result
    assert isinstance(found, HazardsTest)
    frame = patients()[["hospital", "age", "marker", "time_years", "event"]]
    theirs = of_lifelines(frame, "identity", duration_col="time_years", event_col="event", strata=["hospital"])
    assert [item.chi2 for item in found.covariates] == pytest.approx(theirs.test_statistic[["age", "marker"]], rel=1e-6)
    age, marker = found.covariates
    assert age.p is not None
    assert marker.p is not None
    assert marker.p < 0.01 < age.p
    assert set(run.results.analyses) >= {"proportional-hazards:first", "proportional-hazards:second"}


def test_it_is_shown_in_terminal_report_and_comparison(run: Simulated, tmp_path_factory) -> None:
    console = Console(file=io.StringIO(), width=200)
    print_summary(run.results, console=console)
    marker = run.results.of_type(HazardsTest)["proportional-hazards:first"].covariates[1]
    shown = f"{marker.chi2:.3f}"
    terminal = console.file.getvalue()  # type: ignore[attr-defined]
    assert "Proportional hazards" in terminal
    assert shown in terminal
    report = render_report(run.results)
    assert 'id="table-proportional-hazards"' in report
    assert shown in report
    assert "the effect of marker (p &lt; 0.001)" in report or "the effect of marker (p 0.00" in report
    other = tmp_path_factory.mktemp("other")
    text = CAMPAIGN + 'models = ["first"]\ntime_transform = "log1p"\n'
    again = simulated(other, text, data=as_csv(patients(), other / "data.csv"), site_column="hospital")
    assert list(again.results.of_type(HazardsTest)) == ["proportional-hazards:first"]
    comparison = compare(load_runs([run.folder, again.folder]))
    print_comparison(comparison, console=console)
    page = render_comparison(comparison)
    for text in (console.file.getvalue(), page):  # type: ignore[attr-defined]
        assert shown in text
        assert f"{again.results.of_type(HazardsTest)['proportional-hazards:first'].covariates[1].chi2:.3f}" in text
    assert "analyses.proportional-hazards.time_transform" in page
    assert read_results(run.folder / "results.json") == run.results


def test_a_site_answers_few_estimates_and_only_agreed_columns(run: Simulated, tmp_path: Path) -> None:
    campaign = load_campaign(run.folder / "campaign.toml")
    step = registered(campaign)["proportional-hazards:first"]
    assert isinstance(step, ProportionalHazards)
    frame = patients().query("hospital == 'north'").rename(columns={"age": "age_years"}).drop(columns="hospital")
    cohort = Cohort({name: frame[name].to_numpy(float) for name in frame} | {"is_test": np.ones(len(frame))})
    covariates = [
        {"name": name, "coef": coef, "sd": sd} for name, coef, sd in (("age_years", 0.02, 8.0), ("marker", 0.3, 0.5))
    ]

    def asked(iterate) -> dict[str, dict[str, str]]:
        return contributions(campaign, cohort, {step.name: iterate}, folder=tmp_path, run="r", guard=True).withheld

    first = step.begin({"covariates": covariates})
    assert asked(first) == {}
    assert asked({**first, "columns": np.array([1.0, 2.0])})[step.name]["rule"] == "iterate"
    assert asked({name: block for name, block in first.items() if name != "columns"})[step.name]["rule"] == (
        "influence-agreement"
    )
    assert asked({"columns": first["columns"]})[step.name]["rule"] == "iterate"
    others = [asked({**first, "beta": first["beta"] + shift}) for shift in (0.01, 0.02, 0.03, 0.04, 0.05)]
    assert any(withheld.get(step.name, {}).get("rule") == "iterate" for withheld in others)


def test_a_death_that_makes_up_the_sums_is_in_none(rossi: pd.DataFrame, tools) -> None:
    """One death after a hundred years beside those of a year: Σ g and Σ g² would be its time."""
    rule = InfluenceRule(minimum_count=10)
    late = rossi.assign(week=rossi.week.where(rossi.index != rossi.index[rossi.arrest == 1][0], 5200.0))
    step = step_of(("fin", "age"), time="week", event="arrest", rule=rule)
    model = run_locally(step.model, {"a": tools.cohort_of(rossi)})
    assert isinstance(model, Done)
    step.local(tools.cohort_of(rossi), step.begin(model.result))
    with pytest.raises(ValueError, match="one patient would make up too much"):
        step.local(tools.cohort_of(late), step.begin(model.result))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ('time_transform = "rank"', "must be"),
        ('time_transfrom = "identity"', "did you mean analyses.proportional-hazards.time_transform?"),
        ('models = ["third"]', "has nothing to compute"),
        ("models = 3", "must be a list"),
    ],
)
def test_wrong_options_are_told_with_the_mend(options: str, message: str) -> None:
    with pytest.raises(CampaignErrors, match=r"analyses\.proportional-hazards") as error:
        parse_campaign(f"{CAMPAIGN}{options}\n")
    assert message in str(error.value)


def test_without_the_model_an_iterate_says_nothing() -> None:
    step = step_of(("fin",))
    with pytest.raises(IterateRefused, match="coefficients"):
        step.check({})
    assert ANALYSIS.words("proportional-hazards:gap") == "the test of proportional hazards in the Cox model gap"


@pytest.mark.parametrize(
    ("slope", "said"),
    [(0.0835, "0.0835"), (-2.34e-7, "−0.00000023"), (4.6e-10, "0.00000000046"), (0.0, "0.0000"), (3.0, "3.0000")],
)
def test_a_slope_has_the_digits_that_it_needs(slope: float, said: str) -> None:
    """Per mm³ it was 0.0000."""
    assert _slope(slope).text == said
