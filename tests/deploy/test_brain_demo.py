"""Whole campaigns of the estimators on heads as real processes: `fedage demo --estimator brain-sfcn`, and the other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.likely_site import SiteProbe
from fedage.common.analyses.evaluation.predicted_sd import PredictedSDs
from fedage.server.record.results import Results, read_results

pytestmark = [pytest.mark.slow, pytest.mark.processes]


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


def test_three_hospitals_with_series_and_bids_learn_together(tmp_path: Path) -> None:
    results = finished(tmp_path / "demo", estimator="brain-sfcn")
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.mae_years is not None
    assert overall.mae_of_mean_years is not None
    assert overall.mae_years < 0.8 * overall.mae_of_mean_years
    found, _ = results.outcome("predicted-sd", PredictedSDs)
    assert found is not None
    assert found.n == overall.n


def test_they_learn_by_contrasts_and_the_record_says_how_well_their_scanners_are_recognised(tmp_path: Path) -> None:
    results = finished(tmp_path / "demo", estimator="brain-contrastive")
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.mae_years is not None
    assert overall.mae_of_mean_years is not None
    assert overall.mae_years < overall.mae_of_mean_years, "144 steps teach it little"
    probe, why = results.outcome("site-probe", SiteProbe)
    assert probe is not None, why
    assert probe.n == overall.n
    assert probe.internal_mae_years == overall.mae_years
    assert 0 <= probe.balanced_accuracy_low <= probe.balanced_accuracy_high <= 1
