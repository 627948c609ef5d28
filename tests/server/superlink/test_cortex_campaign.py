"""A campaign of `cortex-vnn` with real processes: SuperLink, SuperNodes, agents, TLS, folds and regions compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.common.analyses.evaluation.results import evaluation
from fedage.common.analyses.groups.regional_result import RegionalResiduals
from tests.hospitals_at_work import network, record

pytestmark = pytest.mark.slow

CAMPAIGN = """
[campaign]
name = "cortex"
purpose = "Learn age from three regions at two hospitals and compare men with women, region by region"
seed = 1
sites = ["north", "south"]
wait_s = 120

[estimator]
name = "cortex-vnn"
[estimator.options]
features = ["x1", "x2", "x3"]
age_scale = "linear"
models = 2
residuals = true
eigenvectors = 1

[table]
id = "who"
age = "age"
sex = "sex"

[training]
rounds = 2
local_epochs = 2
batch_size = 4096
optimiser = "adam"
learning_rate = 0.003

[validation]
folds = 2

[analyses.regional-residuals]
column = "is_male"
diagnoses = [1]
reference = 0

[analyses.age-errors]
age_bin_years = 10

[analyses.rank-correlation]
"""


def test_a_campaign_of_real_processes_learns_and_compares_regions(tmp_path: Path) -> None:
    with network(tmp_path) as hospitals:
        file = tmp_path / "cortex.toml"
        file.write_text(CAMPAIGN)
        command, run = hospitals.run(file)
        command.process.wait(600)
        results = record(run)
    assert results.run.status == "finished"
    assert len(results.rounds) == 4
    overall = evaluation(results).test.raw.overall
    assert overall is not None
    assert overall.mae_years is not None
    assert overall.mae_of_mean_years is not None
    assert overall.mae_years < overall.mae_of_mean_years
    regions = results.analyses["regional-residuals"].result
    assert isinstance(regions, RegionalResiduals)
    assert [one.region for one in regions.regions] == ["x1", "x2", "x3"]
    assert regions.models == 2
    assert {"age-errors", "rank-correlation"} <= {name for name, step in results.analyses.items() if step.result}
