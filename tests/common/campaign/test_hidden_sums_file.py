"""What a campaign file says of secure aggregation: mistakes are named with the mend, and the keys are told in words."""

from __future__ import annotations

import pytest

from fedage.common.campaign_file import describe, parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences
from fedage.common.toml.problems import CampaignErrors

FILE = """
[campaign]
name = "hidden"
purpose = "Hide what each hospital brings"
seed = 7
sites = {sites}
[estimator]
name = "chest-ca"
[training]
rounds = 3
quorum = {quorum}
[privacy]
secure_aggregation = true
{more}
"""
THREE = '["north", "south", "west"]'


def file(*, sites: str = THREE, quorum: int | str = 3, more: str = "") -> str:
    return FILE.format(sites=sites, quorum=quorum, more=more)


@pytest.mark.parametrize(
    ("text", "key", "words"),
    [
        (file(quorum=2), "training.quorum", "must be ≥ privacy.minimum_sites = 3 (the default)"),
        (file(quorum=3, more="minimum_sites = 4"), "training.quorum", "must be ≥ privacy.minimum_sites = 4 with"),
        (file(sites='["north", "south"]'), "privacy.minimum_sites", "at most the 2 sites of campaign.sites"),
        (
            file(more="results_by_site = true").replace("secure_aggregation = true", "secure_aggregation = false"),
            "privacy.results_by_site",
            "told without it",
        ),
        (
            file(quorum="3\nfinish_early = true").replace("aggregation = true", "aggregation = false"),
            "training.finish_early",
            "rounds go on without a site",
        ),
        (file(more="minimum_sites = 1"), "privacy.minimum_sites", "2"),
        (file(more='[privacy.site_keys]\nnorth = "ab"'), "privacy.site_keys", "north"),
        (file(more=f'[privacy.site_keys]\n"North Hospital" = "{"ab" * 32}"'), "privacy.site_keys", "North"),
    ],
)
def test_mistakes_are_named(text: str, key: str, words: str) -> None:
    with pytest.raises(CampaignErrors) as errors:
        parse_campaign(text)
    assert key in str(errors.value)
    assert words in str(errors.value)


@pytest.mark.parametrize(("quorum", "minimum"), [(3, 3), (2, 2), (3, 2)])
def test_what_is_right_passes(quorum: int, minimum: int) -> None:
    keys = "\n".join(f'{name} = "{name[0].encode().hex() * 32}"' for name in ("north", "south", "west"))
    found = parse_campaign(file(quorum=quorum, more=f"minimum_sites = {minimum}\n[privacy.site_keys]\n{keys}"))
    assert found.privacy.minimum_sites == minimum
    told = " ".join(campaign_sentences(found))
    assert f"only their sum over at least {minimum} sites is opened" in told
    assert "fedage site audit key" in told
    for name, key in found.privacy.site_keys.items():
        assert f"{name} {key}" in told


def test_an_administrator_reads_what_happens_when_a_site_leaves_and_what_is_told_by_site() -> None:
    told = " ".join(campaign_sentences(parse_campaign(file(more="results_by_site = true"))))
    assert "so a campaign waits for a site that leaves, or ends" in told
    assert "yours are told if your policy has tells_own_results" in told
    found = parse_campaign(file())
    private = found.model_copy(update={"privacy": found.privacy.model_copy(update={"mode": "sample"})})
    assert "Training goes on without a site that leaves" in " ".join(describe._privacy(private))


def test_without_keys_an_administrator_is_told_so() -> None:
    assert "the file has none" in " ".join(campaign_sentences(parse_campaign(file())))
