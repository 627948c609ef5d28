"""Two groups compared over real handlers: the record holds one regression over all sites, and says who adds nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedage.client.compute import predictions
from fedage.common.analyses.groups.result import groups as groups_of
from fedage.common.campaign_file import parse_campaign
from fedage.common.statistics.statistic import FloatArray
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.results import read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, MemorySite, memory_site

CAMPAIGN = """
[campaign]
name = "machinery"
purpose = "Compare groups on pictures of nobody"
seed = 7
wait_s = 1
approval_wait_s = 1
[estimator]
name = "chest-ca"
[estimator.options]
image_size = 64
width = 8
[training]
rounds = 1
batch_size = 8
round_deadline_s = 20
[privacy]
minimum_count = 5
[groups]
column = "diagnosis"
equals = 1
reference = -1
covariates = ["age_years", "true_gap_years"]
"""


def with_diagnosis(site: MemorySite, share: float) -> MemorySite:
    """The site with that share of patients ill, spread evenly over the parts."""
    cohort = site.found.cohort
    ill = (np.arange(cohort.n) * 7919 % 100) < 100 * share
    site.found = replace(site.found, cohort=cohort.with_columns(diagnosis=np.where(ill, 1.0, -1.0)))
    return site


def test_the_record_holds_the_pooled_regression(tmp_path: Path) -> None:
    shares = {"a": 0.5, "b": 0.4, "healthy-only": 0.0, "small": 0.1}
    members = [
        # Seeds by which few predictions gather at two ages: such ones are withheld as levels (`influence_levels`).
        with_diagnosis(memory_site(name, tmp_path / "sites", count=120, seed=number), share)
        for number, (name, share) in enumerate(shares.items(), start=68)
    ]
    grid, campaign = InProcessGrid(members), parse_campaign(CAMPAIGN)
    place = Place(folder=tmp_path / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), campaign, place, key=None, admitted=grid.names)
    groups = groups_of(read_results(tmp_path / "run" / "results.json"))
    assert groups is not None
    assert groups.raw is not None
    assert groups.raw.adjusted is not None
    assert (groups.column, groups.covariates) == ("diagnosis", ("age_years", "true_gap_years"))
    difference, se = pooled(members[:2], campaign.digest)
    assert groups.raw.adjusted.difference_years == pytest.approx(difference, rel=1e-9)
    assert groups.raw.adjusted.se_years == pytest.approx(se, rel=1e-9)
    assert groups.raw.one_group_only == 30
    own = groups.raw.by_site
    assert list(own) == ["a", "b", "healthy-only", "small"]
    assert "one group only" in own["healthy-only"].not_computed
    assert "minimum-count" in own["small"].not_computed
    assert own["a"].unadjusted is not None
    assert groups.corrected.adjusted is not None
    report = (tmp_path / "run" / "report.html").read_text()
    assert "table-group-difference" in report
    assert "the corrected gap of patients with diagnosis = 1" in report


def pooled(members: list[MemorySite], digest: str) -> tuple[float, float]:
    """Group coefficient and its SE of one least-squares fit with a dummy column for each site."""
    rows: list[FloatArray] = []
    for number, site in enumerate(members):
        found = site.found
        snapshot = predictions.cohort_digest(found.cohort, snapshot=found.snapshot)
        cohort = predictions.with_predictions(found.cohort, site.state_dir(digest), run="r1", snapshot=snapshot)
        tested = cohort.where(cohort["is_test"] == 1)
        dummies = np.zeros((tested.n, len(members)))
        dummies[:, number] = 1
        columns = tested.matrix(("age_years", "true_gap_years", "raw_gap_years"))
        rows.append(np.column_stack([tested["diagnosis"] == 1, dummies, columns]))
    stacked = np.concatenate(rows)
    x, y = stacked[:, :-1], stacked[:, -1]
    slopes, rss, *_ = np.linalg.lstsq(x, y, rcond=None)
    variance = rss[0] / (y.size - x.shape[1]) * np.linalg.inv(x.T @ x)
    return float(slopes[0]), float(np.sqrt(variance[0, 0]))
