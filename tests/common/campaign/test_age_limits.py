"""Which age limits a site with the default policy refuses is said before it is asked."""

from __future__ import annotations

import pytest

from fedage.client.consent.policy.types import Disclosure
from fedage.common.campaign.types import USUAL_AGE_STEP_YEARS
from fedage.common.campaign_file import parse_campaign
from fedage.common.campaign_file.describe import limits_off_the_grid
from tests.client.hospital import CAMPAIGN


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        ("", ()),
        ("age_min_years = 40\nage_max_years = 75\n", ()),
        ("age_min_years = 41\n", ("cohort.age_min_years = 41",)),
        ("age_max_years = 62.5\n", ("cohort.age_max_years = 62.5",)),
        ("age_min_years = 1.4\nage_max_years = 84.996\n", ("age_min_years = 1.4", "age_max_years = 84.996")),
    ],
)
def test_limits_beside_the_grid_are_named(limits: str, named: tuple[str, ...]) -> None:
    said = limits_off_the_grid(parse_campaign(f"{CAMPAIGN}\n[cohort]\n{limits}"))
    assert all(name in said for name in named)
    assert bool(said) == bool(named)
    assert not said or "whole multiples of 5 years" in said


def test_the_grid_is_that_of_the_default_policy() -> None:
    assert Disclosure().age_step_years == USUAL_AGE_STEP_YEARS
