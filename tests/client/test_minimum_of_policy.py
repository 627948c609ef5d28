"""A site whose policy asks for a larger minimum count than the campaign file takes part by its own, file unchanged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.consent.cohort_distance import FewValuesChanged, SnapshotTooClose
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN
from tests.client.hospital import CAMPAIGN, Hospital, Template

HEALTHY = '\n[cohort.healthy]\ncolumn = "well"\n'
FOLDS = CAMPAIGN.replace("[validation.fractions]\ntrain = 0.4\nvalidation = 0.3\ntest = 0.3", "[validation]\nfolds = 2")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A hospital where a few of every part are not healthy, with the policy that `fedage site init` writes."""
    made = Template.make(tmp_path_factory.mktemp("template"))
    path = made.folder / "data" / "outcomes.csv"
    table = pd.read_csv(path, dtype=str)
    table["well"] = np.where(np.arange(len(table)) % 7 == 3, 0, 1)
    table.to_csv(path, index=False)
    made.index(made.folder / "home")
    return made


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Callable[[str, int], Hospital]:
    def make(text: str, minimum: int) -> Hospital:
        made = template.copy(tmp_path, approved=False)
        made.policy(f"[disclosure]\nminimum_count = {minimum}\n")
        made.campaign = parse_campaign(text)
        return made

    return make


def set_aside(cohort: SiteCohort) -> int:
    parts = [cohort.cohort[f"is_{part}"] == 1 for part in ("train", "validation", "test")]
    return int(cohort.cohort.n - np.count_nonzero(np.logical_or.reduce(parts)))


@pytest.mark.parametrize("minimum", [2, 3, 5, 8])
@pytest.mark.parametrize("text", [CAMPAIGN + HEALTHY, FOLDS + HEALTHY, CAMPAIGN], ids=["parts", "folds", "all"])
def test_a_site_takes_part_by_its_own_minimum(
    hospital: Callable[[str, int], Hospital], text: str, minimum: int
) -> None:
    site = hospital(text, minimum)
    site.site.rules.approve(site.campaign)
    for kind, changes in ((DESCRIBE, {}), (TRAIN, {"round": 1})):
        reply = site.ask(kind, **changes)
        assert (reply.rule, reply.status) == ("", "ok"), reply.reason
    if site.campaign.validation.folds is None:
        for kind in (EVALUATE, ANALYSE):
            assert site.ask(kind).status == "ok"


def test_the_frozen_parts_are_those_that_answer(hospital: Callable[[str, int], Hospital]) -> None:
    """With a minimum of 8, the few of a part who are not healthy are set aside; with the file's 2 they are not."""
    site = hospital(CAMPAIGN + HEALTHY, 8)
    site.site.rules.approve(site.campaign)
    assert set_aside(site.site.rules.cohort(site.campaign)) > 0
    assert site.ask().status == "ok"


@pytest.mark.parametrize(("approved", "later"), [(2, 8), (8, 2)])
def test_another_minimum_after_approval_needs_another_approval(
    hospital: Callable[[str, int], Hospital], approved: int, later: int
) -> None:
    """Sums by both would differ by the few who are set aside by one only, so approving anew may be refused too."""
    site = hospital(CAMPAIGN + HEALTHY, approved)
    site.site.rules.approve(site.campaign)
    assert site.ask().status == "ok"
    site.policy(f"[disclosure]\nminimum_count = {later}\n")
    reply = site.ask()
    assert (reply.status, reply.rule) == ("refused", "snapshot-changed")
    assert "minimum count" in reply.reason
    site.policy(f"[disclosure]\nminimum_count = {approved}\n")
    assert site.ask().status == "ok"


def test_a_minimum_that_changes_nothing_needs_none(hospital: Callable[[str, int], Hospital]) -> None:
    site = hospital(CAMPAIGN, 2)
    site.site.rules.approve(site.campaign)
    site.policy("[disclosure]\nminimum_count = 5\n")
    assert site.ask().status == "ok"


def test_sums_by_two_minimum_counts_do_not_differ_by_a_few(hospital: Callable[[str, int], Hospital]) -> None:
    site = hospital(CAMPAIGN + HEALTHY, 2)
    site.site.rules.approve(site.campaign)
    site.policy("[disclosure]\nminimum_count = 8\n")
    with pytest.raises((SnapshotTooClose, FewValuesChanged)):
        site.site.rules.approve(site.campaign)
