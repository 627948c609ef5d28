"""Order of predicted risks: slow loops and lifelines, weights of the censoring's curve, and what a site refuses."""

from __future__ import annotations

import numpy as np
import pytest
from lifelines import KaplanMeierFitter
from lifelines.utils import concordance_index

from fedage.common.analyses.base import Done, IterateRefused, NotComputable, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.analyses.survival.kaplan_meier import KaplanMeier
from fedage.common.analyses.survival.risk_discrimination import NAME, RiskDiscrimination, RiskOrder, still_followed
from fedage.common.campaign.fields import risk_column
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.statistics.cohort import Cohort
from fedage.common.statistics.influence import InfluenceRefused, InfluenceRule
from tests.common.estimators.planted_outcomes import TINY, text

YEARS = (1, 2, 3, 4, 5)


def step(*, minimum_count: int = 1, rule: InfluenceRule | None = None, grid_years: float = 0.0) -> RiskOrder:
    curves = KaplanMeier("kaplan-meier", (0.0, *map(float, YEARS)), gap=None, subset=None, minimum_count=minimum_count)
    return RiskOrder(curves, rule=rule, time_grid_years=grid_years)


def patients(n: int, seed: int, *, ties: bool = False, censoring: float = 8.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    time, censored = rng.exponential(5 / np.exp(z)), rng.exponential(censoring, n)
    event = time <= censored
    time = np.minimum(time, censored)
    read = z + rng.normal(0, 0.7, n)
    if ties:
        time, read = np.ceil(time * 2) / 2, np.round(read)
    risks = {risk_column(year): 1 / (1 + np.exp(-read - year / 5 + 1)) for year in YEARS}
    return {"time_years": time, "event": event.astype(float), **risks}


def slow(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every sum of one site, patient by patient, from the definitions."""
    t, d = columns["time_years"], columns["event"] == 1
    n = t.size

    def censoring_curve_before(at: float) -> float:
        g = 1.0
        for u in sorted(set(t)):
            if u < at:
                at_risk = sum(1 for j in range(n) if t[j] > u or (t[j] == u and not d[j]))
                gone = sum(1 for j in range(n) if t[j] == u and not d[j])
                g *= 1 - gone / at_risk if at_risk else 1
        return g

    g = [censoring_curve_before(at) for at in t]
    found = {"c": np.zeros(2), **{f"auc {year}": np.zeros(2) for year in YEARS}}
    for i in range(n):
        for j in range(n):
            if not d[i]:
                continue
            r = columns[risk_column(5)]
            win = 1.0 if r[i] > r[j] else 0.5 if r[i] == r[j] else 0.0
            if t[i] <= 5 and (t[j] > t[i] or (t[j] == t[i] and not d[j])):
                found["c"] += np.array([win, 1.0]) / g[i] ** 2
            for year in YEARS:
                r = columns[risk_column(year)]
                win = 1.0 if r[i] > r[j] else 0.5 if r[i] == r[j] else 0.0
                if t[i] <= year and (t[j] > year or (t[j] == year and not d[j])):
                    found[f"auc {year}"] += np.array([win, 1.0]) / g[i]
    return found


@pytest.mark.parametrize(("seed", "n", "ties"), [(0, 40, False), (1, 60, True), (2, 25, True), (3, 70, False)])
def test_it_is_what_slow_loops_say_over_several_sites(seed: int, n: int, ties: bool, tools) -> None:
    sites = {name: patients(n + k, 10 * seed + k, ties=ties) for k, name in enumerate("abc")}
    one = step()
    iterate = tools.on_tables(one)
    total = tools.summed(one, {name: Cohort(columns) for name, columns in sites.items()}, iterate)
    outcome = one.combine(total, iterate)
    assert isinstance(outcome, Done)
    result = RiskDiscrimination.model_validate(outcome.result)
    sums = [slow(columns) for columns in sites.values()]
    won, pairs = sum(each["c"] for each in sums)
    assert result.c_index == pytest.approx(won / pairs, rel=1e-12)
    assert [each.year for each in result.years] == list(YEARS)
    for each in result.years:
        won, pairs = sum(found[f"auc {each.year}"] for found in sums)
        assert each.auc == pytest.approx(won / pairs, rel=1e-12)
        cases = sum(((c["event"] == 1) & (c["time_years"] <= each.year)).sum() for c in sites.values())
        assert each.cases == cases


@pytest.mark.parametrize("seed", range(4))
def test_harrells_c_of_one_site_is_lifelines(seed: int, tools) -> None:
    columns = patients(80, seed, ties=seed % 2 == 1)
    found = RiskDiscrimination.model_validate(run_locally(step(), {"a": Cohort(columns)}).result)  # type: ignore[union-attr]
    theirs = concordance_index(columns["time_years"], -columns[risk_column(5)], columns["event"])
    assert found.c_index_harrell == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_weights_are_of_the_curve_of_the_censoring_and_not_of_the_event(seed: int) -> None:
    columns = patients(120, seed)
    time, event = columns["time_years"], columns["event"] == 1
    found = still_followed(time, event)
    curves = {
        of: KaplanMeierFitter().fit(time, observed).survival_function_at_times(time - 1e-9).to_numpy()
        for of, observed in (("censoring", ~event), ("event", event))
    }
    np.testing.assert_allclose(found, curves["censoring"], rtol=0, atol=1e-12)
    assert np.abs(found - curves["event"]).max() > 0.1


def test_weights_take_the_censorings_part_out() -> None:
    """With few and with many censored, the same estimand: the C-index of pairs with the event within five years."""
    whole, halved, harrell = [], [], []
    for seed in range(8):
        n = 300
        rng = np.random.default_rng(seed)
        late = rng.random(n) < 0.5
        z = rng.normal(size=n)
        # The sign foretells early events and nothing of late ones, so that who is censored matters.
        time = np.where(late, 2.5 + rng.exponential(3, n), np.minimum(2.5, rng.exponential(1.5 / np.exp(2 * z))))
        risks = {risk_column(year): 1 / (1 + np.exp(-z)) for year in YEARS}
        for into, censored in ((whole, np.full(n, 50.0)), (halved, rng.uniform(0, 6, n))):
            seen = time <= censored
            columns = {"time_years": np.minimum(time, censored), "event": seen.astype(float), **risks}
            outcome = run_locally(step(), {"a": Cohort(columns)})
            assert isinstance(outcome, Done)
            into.append(outcome.result["c_index"])
        harrell.append(outcome.result["c_index_harrell"])
    assert np.mean(halved) == pytest.approx(np.mean(whole), abs=0.02)
    assert abs(np.mean(harrell) - np.mean(whole)) > 0.03


def test_pairs_add_up_over_sites_whatever_their_order(tools) -> None:
    sites = {name: Cohort(patients(50, k)) for k, name in enumerate("abc")}
    one = step()
    iterate = tools.on_tables(one)
    assert np.array_equal(
        tools.summed(one, sites, iterate).vector, tools.summed(one, dict(reversed(sites.items())), iterate).vector
    )
    assert isinstance(one.combine(tools.summed(one, {}, iterate), iterate), NotComputable)


# --- what a site refuses ---

RULE = InfluenceRule(minimum_count=5, largest_share=0.5)


def many(n: int = 300, seed: int = 1) -> dict[str, np.ndarray]:
    return patients(n, seed, censoring=12.0)


def test_intervals_that_a_site_cannot_tell_are_refused(tools) -> None:
    columns = many()
    early = columns["time_years"] <= 1
    columns["event"][early] = (np.cumsum(early)[early] <= 2).astype(float)  # two events in the first year
    one = step(minimum_count=5, rule=RULE)
    iterate = one.begin({"ends": [1, 2, 3, 4, 5], "exact": True, "split_years": None, "median_within_years": None})
    with pytest.raises(IterateRefused, match="has not said it can tell"):
        one.local(Cohort(columns), iterate)
    later = one.begin({"ends": [2, 3, 4, 5], "exact": True, "split_years": None, "median_within_years": None})
    assert one.local(Cohort(columns), later)["cases"].shape == (4,)


@pytest.mark.parametrize("few", [1, 2, 4])
def test_a_risk_that_a_few_have_apart_from_all_others_is_a_small_cell(few: int, tools) -> None:
    for year in (1, 3, 5):
        columns = many()
        columns[risk_column(year)] = (np.arange(300) < few).astype(float)
        one = step(minimum_count=5, rule=RULE)
        statistic = one.local(Cohort(columns), tools.on_tables(one))
        assert statistic.smallest is not None
        assert statistic.smallest.count == few


@pytest.mark.parametrize("how", ["one event", "one late case after almost all were censored", "nobody is left"])
def test_pairs_of_one_patient_do_not_leave(how: str, tools) -> None:
    columns = many()
    if how == "one event":
        columns["event"][:] = 0.0
        columns["event"][int(np.argmin(columns["time_years"]))] = 1.0
    elif how == "nobody is left":
        columns["time_years"] = np.where(np.arange(300) == 0, 9.0, 0.5)
        columns["event"] = (np.arange(300) > 0).astype(float)
    else:
        columns["time_years"] = np.where(np.arange(300) < 290, 0.5, np.linspace(2, 9, 300))
        columns["event"] = (np.arange(300) == 291).astype(float)
    one = step(rule=RULE)
    with pytest.raises(InfluenceRefused, match="too many of the pairs"):
        one.local(Cohort(columns), tools.on_tables(one))


# --- in a campaign ---

SURVIVAL = "[survival]\ntable_times_years = [1, 2, 3, 4, 5]\n"
ASKED = f"[analyses.{NAME}]\n"


def test_a_campaign_that_asks_for_it_has_the_step_after_the_grid() -> None:
    campaign = parse_campaign(text("breast-outcome", {**TINY, "outcome": "risk"}, more=SURVIVAL + ASKED))
    one = registered(campaign)[NAME]
    assert isinstance(one, RiskOrder)
    assert one.rule is not None
    assert one.preceding.name == "table-grid"
    assert one.rounding == ("time_years", 0.25)
    assert any("weighed for who was censored" in sentence for sentence in campaign_sentences(campaign))


@pytest.mark.parametrize(
    ("options", "more"),
    [
        ({"outcome": "risk"}, "[survival]\n" + ASKED),
        ({"outcome": "risk"}, ASKED),
        ({"outcome": "diagnosis"}, SURVIVAL + ASKED),
    ],
)
def test_a_file_that_does_not_allow_it_is_refused(options, more) -> None:
    with pytest.raises(CampaignErrors, match=NAME):
        parse_campaign(text("breast-outcome", {**TINY, **options}, more=more))
