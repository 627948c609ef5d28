"""A record says which rules of disclosure control its campaign file does without."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.common.campaign_file import parse_campaign
from fedage.server.campaign.assemble import rules_off
from fedage.server.campaign.run_so_far import Place

CAMPAIGN = """
[campaign]
name = "survival"
purpose = "Say which rules of disclosure control are off"
seed = 1

[table]
id = "who"
age = "age"

[survival]
[[survival.models]]
name = "age"
covariates = ["age"]

[privacy]
minimum_count = 3
"""
COLUMNS, SHARE = "privacy.patients_per_column = 0", "privacy.largest_share = 1"


def noted(tmp_path: Path, keys: str, *, environment: str, guard: bool = True) -> str:
    place = Place(folder=tmp_path, run="r1", environment=environment, guard=guard)
    return " ".join(rules_off(parse_campaign(CAMPAIGN + keys), place))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("", ()),
        ("patients_per_column = 0", (COLUMNS,)),
        ("largest_share = 1", (SHARE,)),
        ("patients_per_column = 0\nlargest_share = 1.0", (COLUMNS, SHARE)),
        ("patients_per_column = 1\nlargest_share = 0.9", ()),
    ],
)
def test_each_rule_that_is_off_is_named(keys: str, said: tuple[str, ...], tmp_path: Path) -> None:
    found = noted(tmp_path, keys, environment="simulation")
    assert [rule for rule in (COLUMNS, SHARE) if rule in found] == list(said)
    assert bool(found) is bool(said)


def test_a_deployed_site_may_ask_for_it_all_the_same(tmp_path: Path) -> None:
    keys = "patients_per_column = 0"
    assert "policy may ask for it" in noted(tmp_path, keys, environment="deployment")
    assert "policy" not in noted(tmp_path, keys, environment="simulation")


def test_without_a_guard_nothing_more_is_said(tmp_path: Path) -> None:
    assert noted(tmp_path, "largest_share = 1", environment="simulation", guard=False) == ""
