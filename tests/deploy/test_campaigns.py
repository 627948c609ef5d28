"""The campaign files that come with the package: each is one, and it runs on the data it names."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.datasets import load_lung
from lifelines.statistics import logrank_test

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.groups import result
from fedage.common.analyses.survival import results as survival_results
from fedage.deploy.machine.campaign_file import load_campaign
from tests.deploy.simulating import as_csv, simulated

FOLDER = Path(str(files("fedage.deploy"))) / "campaigns"
NAMES = ("abide1-mlp", "abide1-ridge", "fcon1000-vnn", "lung-survival", "lung-survival-pooled")
ABIDE = Path(__file__).parents[3] / "shared/data/abide1/abide1-freesurfer.csv"


def test_all_of_them_are_here() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.toml")) == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_campaign_named_as_its_file(name: str) -> None:
    assert load_campaign(FOLDER / f"{name}.toml").campaign.name == name


def lung() -> pd.DataFrame:
    return load_lung().assign(subject=range(1, 229), time_years=lambda table: table.time / 365.25)


def test_lung_without_a_guard_is_lifelines_to_the_last_digit(tmp_path: Path) -> None:
    """Every distinct time is in the file, so nothing is rounded and no curve is coarser than the pooled one."""
    text = (FOLDER / "lung-survival-pooled.toml").read_text()
    done = simulated(tmp_path, text, data=as_csv(lung(), tmp_path / "lung.csv"), site_column="inst")
    survival, rows = survival_results.survival(done.results), lung().dropna(subset="inst")
    assert survival is not None
    for found, columns, strata in zip(survival.cox, (["inst"], []), ("inst", None), strict=True):
        frame = rows[["time", "status", "age", "sex", *columns]]
        oracle = CoxPHFitter().fit(frame, "time", "status", strata=strata, fit_options={"precision": 1e-12})
        assert [item.coef for item in found.covariates] == pytest.approx(oracle.params_.tolist(), abs=1e-8)
        assert [item.se for item in found.covariates] == pytest.approx(oracle.standard_errors_.tolist(), abs=1e-8)
        assert found.log_likelihood == pytest.approx(oracle.log_likelihood_, abs=1e-8)
        assert (found.n, found.events, len(found.sites)) == (227, 164, 18)
    curves = survival.kaplan_meier
    assert curves is not None
    assert curves.log_rank is not None
    men, women = rows[rows.sex == 1], rows[rows.sex == 2]
    test = logrank_test(men.time, women.time, men.status, women.status)
    assert curves.log_rank.chi2 == pytest.approx(test.test_statistic, abs=1e-9)
    for group, of_sex in zip(curves.groups, (women, men), strict=True):
        median = KaplanMeierFitter().fit(of_sex.time, of_sex.status).median_survival_time_
        assert (group.median_survival or 0) * 365.25 == pytest.approx(median, abs=1e-4)
    assert not done.results.run.guard


def test_lung_runs_as_its_first_lines_say(tmp_path: Path) -> None:
    text = (FOLDER / "lung-survival.toml").read_text()
    done = simulated(tmp_path, text, data=as_csv(lung(), tmp_path / "lung.csv"), site_column="inst")
    survival = survival_results.survival(done.results)
    assert survival is not None
    by_site, one_baseline = survival.cox
    assert not by_site.not_computed
    assert len(by_site.sites) > 5
    # With hospitals this small no common intervals are short enough.
    assert "by_site = true" in one_baseline.not_computed or "minimum count" in one_baseline.not_computed
    for group in survival.kaplan_meier.groups if survival.kaplan_meier else ():
        for value, low, high in zip(group.survival, group.bound_low, group.bound_high, strict=True):
            assert value is None or low <= value <= high  # type: ignore[operator]


def test_lung_without_the_guard_gives_the_numbers_that_the_file_promises(tmp_path: Path) -> None:
    text = (FOLDER / "lung-survival.toml").read_text()
    for old, new in (
        ("minimum_count = 3", "minimum_count = 1"),
        ("guard = true", "guard = false"),
        ("time_grid_years = 0.08333333333", "time_grid_years = 0.0027378508"),
    ):
        assert old in text
        text = text.replace(old, new)
    done = simulated(tmp_path, text, data=as_csv(lung(), tmp_path / "lung.csv"), site_column="inst")
    found = survival_results.survival(done.results).cox[0] if survival_results.survival(done.results) else None
    assert found is not None
    assert [c.coef for c in found.covariates] == pytest.approx([0.0192049, -0.4923516], abs=2e-7)


@pytest.mark.slow
@pytest.mark.skipif(not ABIDE.is_file(), reason="../shared/data/abide1 is not beside the repository")
def test_abide_ridge_runs_as_its_first_lines_say(tmp_path: Path) -> None:
    done = simulated(tmp_path, (FOLDER / "abide1-ridge.toml").read_text(), data=ABIDE, site_column="SITE")
    results = done.results
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert results.run.status == "finished"
    assert overall is not None
    assert overall.n == 352
    assert overall.mae_years is not None
    assert overall.mae_years < 2.75  # 2.61 is the pooled figure
    assert len(evaluation_results.evaluation(results).test.raw.by_site) == 10
    assert result.groups(results) is not None
    # Folds are dealt out, so every hospital holds enough controls out of each to take part in all five models.
    assert not any(site.withheld for site in results.sites)
