"""What a ridge at virtual sites was made from is in the record and the report, and each site's own mean is exact."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fedage.common.analyses.evaluation import results as evaluation_results
from tests.deploy.simulating import Simulated, as_csv, simulated

CAMPAIGN = """
[campaign]
name = "ridge"
purpose = "See what the model was made from"
seed = 5
[estimator]
name = "table-ridge"
[estimator.options]
features = ["*"]
penalty = "auto"
[table]
id = "who"
age = "age"
[validation]
folds = 3
[privacy]
minimum_count = 3
"""


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Three sites, of which the smallest has too few patients in a fold; a column that does not vary."""
    rng = np.random.default_rng(1)
    site = np.repeat(["large", "other", "small"], (70, 60, 6))
    x = rng.normal(size=(site.size, 4))
    age = 50 + 8 * x[:, 0] + 2 * rng.normal(size=site.size)
    columns = {f"x{k}": x[:, k] for k in range(4)}
    who = [f"p{k}" for k in range(site.size)]
    return pd.DataFrame({"who": who, "site": site, "age": age, **columns, "flat": 7.0})


@pytest.fixture(scope="module")
def done(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    folder = tmp_path_factory.mktemp("ridge")
    return simulated(folder / "run", CAMPAIGN, data=as_csv(frame, folder / "t.csv"), site_column="site")


def test_every_folds_preparation_is_in_the_record(done: Simulated) -> None:
    found = done.results.preparation
    assert [item.fold for item in found] == [1, 2, 3]
    assert done.results.campaign.rounds is None
    for item in found:
        assert item.unused == ("flat",)
        assert item.features == 5
        assert item.penalty_from == "inner-folds"
        # The penalty is one of those that were tried.
        assert item.penalty in [penalty for penalty, _ in item.cross_validation]
        assert item.sites == ("large", "other")
        assert list(item.withheld) == ["small"]
        assert item.withheld["small"].startswith(("minimum-count: ", "influence: "))
        largest, middle = item.median_error_in_sd
        assert largest is not None
        assert middle is not None
        assert 0 < middle <= largest
    # Each patient of the two sites is held out of one fold and trained on in the two others.
    assert sum(item.n for item in found) == 2 * 130


def test_the_report_tells_it(done: Simulated) -> None:
    report = (done.folder / "report.html").read_text()
    assert "solved exactly from sums, once for each of 3 folds, so no rounds of training were needed." in report
    assert "1 of 5 features is not used: flat." in report
    assert "small (folds 1, 2, 3)" in report
    assert "No round of training was finished" not in report


def test_a_sites_own_mean_is_that_of_its_patients(done: Simulated, frame: pd.DataFrame) -> None:
    for site, metrics in evaluation_results.evaluation(done.results).test.raw.by_site.items():
        age = frame.loc[frame["site"] == site, "age"]
        assert metrics.n == len(age)
        assert metrics.mae_of_site_mean_years == pytest.approx((age - age.mean()).abs().mean(), abs=1e-9)
