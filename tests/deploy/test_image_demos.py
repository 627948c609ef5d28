"""Whole campaigns of the estimators on images as real processes: `fedage demo --estimator NAME`."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.age_errors import AgeErrors
from fedage.common.analyses.evaluation.likely_site import SiteProbe
from fedage.common.analyses.evaluation.predicted_sd import PredictedSDs
from fedage.common.analyses.evaluation.rank_correlation import RankCorrelation
from fedage.common.analyses.evaluation.results import Metrics
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from fedage.deploy.demo.children import CHILDREN_HOSPITALS, GAP_SD_YEARS
from fedage.deploy.demo.kinds import demo_of, names
from fedage.deploy.demo.phantoms import planted
from fedage.deploy.demo.truth import Planted
from fedage.server.record.results import Results, read_results


def finished(folder: Path, *, estimator: str) -> Results:
    """The record of a quick demo."""
    command = [sys.executable, "-m", "fedage.deploy", "demo", "--estimator", estimator, "--quick"]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(folder / "results.json")
    assert results.run.status == "finished"
    assert results.phantoms
    assert [site.status for site in results.sites] == ["took part"] * 3
    return results


def error_and_that_of_the_mean(metrics: object) -> tuple[float, float]:
    assert isinstance(metrics, Metrics)
    assert metrics.mae_years is not None
    assert metrics.mae_of_mean_years is not None
    return metrics.mae_years, metrics.mae_of_mean_years


def states_its_sd(results: Results, overall: Metrics) -> None:
    found, _ = results.outcome("predicted-sd", PredictedSDs)
    assert found is not None
    assert found.n == overall.n


def holds_for_thick_slices(results: Results, overall: Metrics) -> None:
    states_its_sd(results, overall)
    outside = results.external["evaluation:test"]
    assert outside.sites == ("harbour",)
    mae_years, of_mean_years = error_and_that_of_the_mean(outside.result)
    assert mae_years < 0.8 * of_mean_years
    print("thick slices", mae_years, of_mean_years)


def tells_how_well_scanners_are_recognised(results: Results, overall: Metrics) -> None:
    probe, why = results.outcome("site-probe", SiteProbe)
    assert probe is not None, why
    assert probe.n == overall.n
    assert probe.internal_mae_years == overall.mae_years
    assert 0 <= probe.balanced_accuracy_low <= probe.balanced_accuracy_high <= 1


def is_of_children_in_months(results: Results, overall: Metrics) -> None:
    errors, _ = results.outcome("age-errors", AgeErrors)
    assert errors is not None
    assert errors.unit == "months"
    assert overall.mae_years is not None
    assert errors.groups[0].mae == pytest.approx(12 * overall.mae_years)
    assert {"all", "male", "female"} <= {group.group for group in errors.groups}
    ranks, _ = results.outcome("rank-correlation", RankCorrelation)
    assert ranks is not None
    assert ranks.spearman > 0.9


def nothing_else(results: Results, overall: Metrics) -> None:
    del results, overall


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("estimator", "of_mean", "more"),
    [
        ("brain-sfcn", 0.8, states_its_sd),
        ("brain-clinical2d", 0.8, holds_for_thick_slices),
        # 144 steps teach it little.
        ("brain-contrastive", 1.0, tells_how_well_scanners_are_recognised),
        ("brain-patches", 0.8, nothing_else),
        ("brain-tsan", 0.8, nothing_else),
        ("breast-4view", 0.8, nothing_else),
        ("chest-ca-children", 0.5, is_of_children_in_months),
    ],
)
def test_three_hospitals_learn_together(
    tmp_path: Path, estimator: str, of_mean: float, more: Callable[[Results, Metrics], None]
) -> None:
    """To below this part of the error of the mean."""
    results = finished(tmp_path / "demo", estimator=estimator)
    overall = evaluation_results.evaluation(results).test.raw.overall
    mae_years, of_mean_years = error_and_that_of_the_mean(overall)
    print(estimator, mae_years, of_mean_years)
    assert mae_years < of_mean * of_mean_years
    assert overall is not None
    more(results, overall)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("quick", [True, False])
def test_every_demo_writes_a_file_that_its_hospitals_can_approve(name: str, quick: bool) -> None:
    kind = demo_of(name)
    truth = Planted(
        hazard_ratio_per_year=1.2,
        hazard_ratio_per_year_of_age=1.1,
        gap_sd_years=3.5,
        age_range_years=dict.fromkeys(kind.sites, (40.0, 85.0)),
        irreducible_mae_years=dict.fromkeys(kind.sites, 2.5),
    )
    campaign = parse_campaign(kind.campaign_file(truth, sites=kind.sites, seed=1, quick=quick))
    assert campaign.estimator is not None
    assert campaign.estimator.name == name.removesuffix("-children")
    assert campaign.campaign.sites == kind.sites
    assert campaign.privacy.minimum_count == kind.minimum_count(quick)


@pytest.mark.parametrize("quick", [True, False])
def test_the_file_of_children_is_in_months(quick: bool) -> None:
    kind = demo_of("chest-ca-children")
    truth = planted(CHILDREN_HOSPITALS, gap_sd_years=GAP_SD_YEARS)
    campaign = parse_campaign(kind.campaign_file(truth, sites=kind.sites, seed=1, quick=quick))
    assert campaign.estimator is not None
    assert campaign.estimator.name == "chest-ca"
    assert campaign.estimator.options["age_in"] == "months"
    assert campaign.estimator.options["sex_input"]
    assert {"age-errors", "rank-correlation"} <= set(registered(campaign))
    assert all(0.4 < mae < 0.6 for mae in truth.irreducible_mae_years.values())
