"""The log-rank test of many small hospitals whose tables are hidden is that of their patients pooled, by lifelines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.plan import registered
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.common.analyses.test_total_grid import apart, campaign, real, rounded_up
from tests.machinery import InProcessGrid, MemorySite

REAL = {
    # Hospitals and how many, table times, what the two curves are split by and where, days in a year, minimum count.
    "LeukSurv": ("fac_district", 24, [0.5, 1.0, 2.0, 3.0, 5.0], ("num_age", 60.0), 365.25, 3),
    "d.oropha.rec": ("fac_inst", 6, [2.0, 3.0, 4.0], ("num_nstage", 2.0), 1.0, 2),
}


def table_of(name: str) -> pd.DataFrame:
    site, _, times, (column, at), per_year, _ = REAL[name]
    frame = real(name)
    return frame[[site, "event"]].assign(
        time_years=rounded_up(frame["time"].to_numpy(float) / per_year, times),
        above=frame[column].astype(float) - at,
        is_test=1.0,
        healthy=1.0,
        age_years=frame["num_age"].astype(float),
    )


def must_be_that_of_the_pooled(found: Mapping[str, Any], table: pd.DataFrame, times: list[float]) -> None:
    """The follow-up ends at the last table time."""
    from lifelines.statistics import logrank_test

    high = (table["above"] > 0).to_numpy()
    followed = np.minimum(table["time_years"], times[-1]).to_numpy()
    event = table["event"].where(table["time_years"] <= times[-1], 0).to_numpy()
    theirs = logrank_test(followed[high], followed[~high], event[high], event[~high])
    assert theirs.test_statistic > 3
    assert list(found["table_times"]) == times
    assert found["log_rank"]["chi2"] == pytest.approx(theirs.test_statistic, rel=1e-9)
    assert found["log_rank"]["p"] == pytest.approx(theirs.p_value, rel=1e-7)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_the_log_rank_test_of_real_small_hospitals_is_that_of_their_patients_pooled(name: str) -> None:
    table, (site, count, times, _, _, minimum) = table_of(name), REAL[name]
    hospitals = apart(table, site)
    assert len(hospitals) == count
    made = campaign(times, "above", minimum=minimum, curves_by="above")
    outcome = run_locally(registered(made)["kaplan-meier"], hospitals)
    assert isinstance(outcome, Done)
    must_be_that_of_the_pooled(outcome.result, table, times)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REAL)
def test_it_is_so_through_masked_messages_too(name: str, tmp_path: Path) -> None:
    table, (site, _, times, _, _, minimum) = table_of(name), REAL[name]
    members = [
        MemorySite(f"site-{number}", SiteCohort(cohort=cohort, samples=None), tmp_path / "sites")
        for number, cohort in apart(table, site).items()
    ]
    grid = InProcessGrid(members)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True, sites_there=len(members))
    made = campaign(times, "above", minimum=minimum, curves_by="above")
    conduct(PollingGrid(grid, poll_s=0.01), made, place, key=None, admitted=grid.names)
    step = read_results(tmp_path / "run" / "results.json").analyses["kaplan-meier"]
    assert step.result is not None, step.not_computed
    assert step.sites == tuple(sorted(member.name for member in members))
    must_be_that_of_the_pooled(step.result.model_dump(), table, times)
