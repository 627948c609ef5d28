"""The demo of `chest-ca` on children: its file, and a whole campaign as real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.evaluation.age_errors import AgeErrors
from fedage.common.analyses.evaluation.rank_correlation import RankCorrelation
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from fedage.deploy.demo.children import CHILDREN_HOSPITALS, GAP_SD_YEARS
from fedage.deploy.demo.kinds import demo_of
from fedage.deploy.demo.phantoms import planted
from fedage.server.record.results import read_results


@pytest.mark.parametrize("quick", [True, False])
def test_the_file_is_one_of_children_in_months(quick: bool) -> None:
    kind = demo_of("chest-ca-children")
    truth = planted(CHILDREN_HOSPITALS, gap_sd_years=GAP_SD_YEARS)
    campaign = parse_campaign(kind.campaign_file(truth, sites=kind.sites, seed=1, quick=quick))
    assert campaign.estimator is not None
    assert campaign.estimator.name == "chest-ca"
    assert campaign.estimator.options["age_in"] == "months"
    assert campaign.estimator.options["sex_input"]
    assert {"age-errors", "rank-correlation"} <= set(registered(campaign))
    assert all(0.4 < mae < 0.6 for mae in truth.irreducible_mae_years.values())


@pytest.mark.slow
@pytest.mark.processes
def test_three_hospitals_learn_the_age_of_children_together(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    command = [sys.executable, "-m", "fedage.deploy", "demo", "--estimator", "chest-ca-children", "--quick"]
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
    assert overall.mae_years < 0.5 * overall.mae_of_mean_years
    errors, _ = results.outcome("age-errors", AgeErrors)
    assert errors is not None
    assert errors.unit == "months"
    assert errors.groups[0].mae == pytest.approx(12 * overall.mae_years)
    assert {"all", "male", "female"} <= {group.group for group in errors.groups}
    ranks, _ = results.outcome("rank-correlation", RankCorrelation)
    assert ranks is not None
    assert ranks.spearman > 0.9
    print(12 * overall.mae_years, 12 * overall.mae_of_mean_years, ranks.spearman, errors.groups)
