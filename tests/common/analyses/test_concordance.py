"""The C-index of pairs of one site: against lifelines and a slow loop, under the guard, and wherever it is shown."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index
from rich.console import Console

from fedage.client.compute.contribute import contributions
from fedage.common.analyses.agreement import Agreed
from fedage.common.analyses.base import Done, NotComputable, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival.concordance import Concordance, ModelConcordance, comparable_of_each, pairs_of
from fedage.common.analyses.survival.cox_by_site import CoxBySite
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.server.cli.summary import print_summary
from fedage.server.compare.comparison import compare
from fedage.server.compare.page import render_comparison
from fedage.server.compare.runs import load_runs
from fedage.server.compare.table import print_comparison
from fedage.server.report import render_report
from tests.deploy.simulating import Simulated, as_csv, simulated

CAMPAIGN = """
[campaign]
name = "order"
purpose = "Who has an event first"
seed = 1

[table]
id = "subject"
age = "age"

[survival]
models = [{ name = "age", covariates = ["age_years"] }, { name = "both", covariates = ["age_years", "marker"] }]

[analyses.concordance]
"""


def step_of(covariates: tuple[str, ...], *, rule=None, **options) -> ModelConcordance:
    cox = CoxBySite("cox:m", covariates, subset=None, **options)
    return ModelConcordance("concordance:m", cox if rule is None else Agreed(cox, rule=rule), cox)


@pytest.mark.parametrize("data", ["lung", "rossi", "gbsg2"])
def test_as_lifelines_counts_pairs_of_real_patients(data: str, request, tools) -> None:
    frame = request.getfixturevalue(data).dropna()
    time, event, site, covariates = {
        "lung": ("time", "status", "inst", ("age", "sex")),
        "rossi": ("week", "arrest", "race", ("fin", "age", "prio")),
        "gbsg2": ("time", "cens", "menostat", ("age", "horTh", "pnodes")),
    }[data]
    frame = frame[[time, event, site, *covariates]]
    fitted = CoxPHFitter().fit(frame, time, event, strata=[site], fit_options={"precision": 1e-12})
    sites = {str(name): tools.cohort_of(rows) for name, rows in frame.groupby(site)}
    found = tools.result_of(step_of(covariates, time=time, event=event), sites)
    assert found["c_index"] == pytest.approx(fitted.concordance_index_, abs=1e-12)
    # Site by site, from the model's own coefficients.
    step, model = (
        step_of(covariates, time=time, event=event),
        run_locally(step_of(covariates, time=time, event=event).cox, sites),
    )
    assert isinstance(model, Done)
    for name, rows in frame.groupby(site):
        if len(rows) < 5:
            continue
        iterate = step.begin(model.result)
        own = step.combine(step.local(sites[str(name)], iterate), iterate)
        risk = rows[list(covariates)].to_numpy() @ [item["coef"] for item in model.result["covariates"]]
        assert isinstance(own, Done)
        theirs = concordance_index(rows[time], -np.round(risk, 9), rows[event])
        assert own.result["c_index"] == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_pairs_with_ties_of_every_kind_by_a_slow_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = (0, 1, 2, 7, 40, 90)[seed]
    time, event, risk = rng.integers(0, 9, n).astype(float), rng.integers(0, 2, n) == 1, rng.integers(0, 4, n) * 1.0
    slow, each = np.zeros(3), np.zeros(n)
    for i in range(n):
        for j in range(n):
            if event[i] and (time[j] > time[i] or (time[j] == time[i] and not event[j])):
                slow += (risk[i] > risk[j], risk[i] == risk[j], 1)
                each[[i, j]] += 1
    assert pairs_of(time, event, risk) == pytest.approx(slow, abs=0)
    assert comparable_of_each(time, event) == pytest.approx(each, abs=0)


def test_pairs_add_up_over_sites_whatever_their_order(rossi: pd.DataFrame, tools) -> None:
    step = step_of(("fin", "age"), time="week", event="arrest", strata=("race",))
    sites = {str(k): tools.cohort_of(rows) for k, rows in rossi.groupby("mar")}
    model = run_locally(step.cox, sites)
    assert isinstance(model, Done)
    iterate = step.begin(model.result)
    whole = tools.summed(step, sites, iterate)
    assert np.array_equal(whole.vector, sum(step.local(cohort, iterate).vector for cohort in sites.values()))
    other = tools.summed(step, dict(reversed(sites.items())), iterate)
    assert np.array_equal(whole.vector, other.vector)
    assert isinstance(step.combine(tools.summed(step, {}, iterate), iterate), NotComputable)


def patients(*, seed: int = 5, each: int = 120) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 3 * each
    age, marker = rng.normal(60, 8, n).round(1), rng.normal(0, 1, n).round(2)
    time = rng.exponential(4 / np.exp(0.06 * (age - 60) + 0.7 * marker))
    censored = rng.uniform(0.5, 8, n)
    return pd.DataFrame(
        {
            "subject": range(n),
            "hospital": np.repeat(["north", "south", "west"], each),
            "age": age,
            "marker": marker,
            "time_years": np.minimum(time, censored),
            "event": (time <= censored).astype(float),
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    folder = tmp_path_factory.mktemp("order")
    return simulated(folder, CAMPAIGN, data=as_csv(patients(), folder / "data.csv"), site_column="hospital")


def test_under_the_guard_it_is_what_lifelines_says_and_each_sites_own_is_there(run: Simulated) -> None:
    step = run.results.analyses["concordance:both"]
    frame = patients()[["hospital", "age", "marker", "time_years", "event"]]
    frame["time_years"] = np.ceil(frame.time_years / 0.25 - 1e-9) * 0.25
    fitted = CoxPHFitter().fit(frame, "time_years", "event", strata=["hospital"], fit_options={"precision": 1e-12})
    assert isinstance(step.result, Concordance)
    assert step.result.c_index == pytest.approx(fitted.concordance_index_, abs=1e-12)
    assert sorted(step.by_site) == ["north", "south", "west"]
    counts = [own.comparable for own in step.by_site.values() if isinstance(own, Concordance)]
    assert sum(counts) == step.result.comparable


def test_it_is_shown_in_terminal_report_and_comparison(run: Simulated, tmp_path_factory) -> None:
    found = run.results.of_type(Concordance)["concordance:both"]
    pairs = f"{found.comparable:,}".replace(",", " ")
    console = Console(file=io.StringIO(), width=200)
    print_summary(run.results, console=console)
    report = render_report(run.results)
    for text in (console.file.getvalue(), report):  # type: ignore[attr-defined]
        assert f"{found.c_index:.3f}" in text
        assert pairs in text
    assert 'id="table-concordance-sites"' in report
    assert f"The Cox model both orders {found.c_index:.3f} of {found.comparable} comparable pairs" in report
    other = tmp_path_factory.mktemp("other")
    again = simulated(
        other, CAMPAIGN, data=as_csv(patients(seed=6), other / "data.csv"), site_column="hospital"
    )  # fmt: skip
    comparison = compare(load_runs([run.folder, again.folder]))
    print_comparison(comparison, console=console)
    second = again.results.of_type(Concordance)["concordance:both"]
    for text in (console.file.getvalue(), render_comparison(comparison)):  # type: ignore[attr-defined]
        assert pairs in text
        assert f"{second.c_index:.3f}" in text


def test_few_estimates_are_answered_and_few_deaths_are_not(run: Simulated, tmp_path: Path) -> None:
    campaign = load_campaign(run.folder / "campaign.toml")
    step = registered(campaign)["concordance:both"]
    assert isinstance(step, ModelConcordance)
    frame = patients().query("hospital == 'north'").rename(columns={"age": "age_years"}).drop(columns="hospital")
    cohort = Cohort({name: frame[name].to_numpy(float) for name in frame} | {"is_test": np.ones(len(frame))})
    covariates = [
        {"name": name, "coef": coef, "sd": sd} for name, coef, sd in (("age_years", 0.06, 8.0), ("marker", 0.7, 1.0))
    ]
    first = step.begin({"covariates": covariates})

    def rule(cohort: Cohort, iterate, run: str = "r") -> str:
        told = contributions(campaign, cohort, {step.name: iterate}, folder=tmp_path / run, run=run, guard=True)
        return told.withheld.get(step.name, {}).get("rule", "")

    for folder in ("r", "few"):
        (tmp_path / folder).mkdir()
    shifted = [{**first, "beta": first["beta"] * factor} for factor in (1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06, 1.07)]
    assert [rule(cohort, iterate) for iterate in shifted] == [""] * 5 + ["iterate"] * 3
    assert rule(cohort, shifted[0]) == ""
    assert rule(cohort, {**first, "columns": np.zeros(2)}) == "iterate"
    few = cohort.with_columns(event=np.where(np.arange(cohort.n) < 8, 1.0, 0.0))
    assert rule(few, first, "few") == "minimum-count"


@pytest.mark.parametrize("late", [2.0, 30.0, 400.0])
def test_pairs_that_are_all_one_patients_are_in_no_count(late: float) -> None:
    """Eleven deaths after everybody's censoring but one, who outlives them: every pair but a few is with that one."""
    time = np.concatenate([np.full(30, 1.0), np.full(11, late), [late + 1]])
    event = np.concatenate([np.zeros(30), np.ones(11), [0.0]])
    x = np.random.default_rng(1).normal(size=time.size)
    cohort = Cohort({"time_years": time, "event": event, "x": x})
    step = step_of(("x",), rule=InfluenceRule(minimum_count=2, largest_share=1.0))
    iterate = step.begin({"covariates": [{"name": "x", "coef": 0.1, "sd": 1.0}]})
    assert step.local(cohort, iterate)["comparable"] == 11
    strict = step_of(("x",), rule=InfluenceRule(minimum_count=2, largest_share=0.5))
    with pytest.raises(InfluenceRefused):
        strict.local(cohort, iterate)


@pytest.mark.parametrize("name", ["concordence", "c-index", "cox"])
def test_an_analysis_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(CampaignErrors, match=rf"\[analyses.{name}\].*concordance"):
        parse_campaign(CAMPAIGN.replace("[analyses.concordance]", f"[analyses.{name}]"))
