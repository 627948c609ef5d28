"""A whole campaign of `breast-4view` as real processes: `fedage demo --estimator breast-4view`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.server.record.results import read_results

pytestmark = [pytest.mark.slow, pytest.mark.processes]


def test_three_hospitals_with_four_views_learn_together(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "fedage.deploy", "demo", "--estimator", "breast-4view", "--quick"]
    done = subprocess.run([*command, "--out", str(folder)], capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read_results(folder / "results.json")
    assert results.run.status == "finished"
    assert results.phantoms
    assert [site.status for site in results.sites] == ["took part"] * 3
    overall = evaluation_results.evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.mae_years is not None
    assert overall.mae_of_mean_years is not None
    assert overall.mae_years < 0.8 * overall.mae_of_mean_years
