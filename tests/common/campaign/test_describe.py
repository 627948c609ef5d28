"""What a hospital's administrator reads follows the file."""

import pytest

from fedage.common.campaign_file import parse_campaign
from fedage.common.campaign_file.describe import campaign_sentences

BASE = """
[campaign]
name = "first-light"
purpose = "Relate the age gap to survival."
seed = 7
[estimator]
name = "chest-ca"
[training]
rounds = 3
"""


def said(text: str) -> str:
    return "\n".join(campaign_sentences(parse_campaign(text)))


def test_says_what_is_computed_what_leaves_and_which_privacy() -> None:
    text = said(
        BASE + '[survival]\ntable_times_years = [1, 2]\nmodels = [{ name = "m", covariates = ["gap_years"] }]\n'
    )
    for phrase in (
        "asks: Relate the age gap to survival.",
        "3 rounds, each 1 pass over your training patients",
        "70% train the model, 15% set the age-bias correction, 15% are only reported on",
        "1 Cox model: m (gap_years, sites apart)",
        "leave your site for the times 1, 2 years",
        "fewer than 10 patients behind it is withheld",
        "There is no differential privacy",
        "Secure aggregation is off",
    ):
        assert phrase in text


def test_follows_the_file() -> None:
    assert "follow-up" not in said(BASE)
    assert "withheld" not in said(BASE + "[privacy]\nminimum_count = 1\n")
    assert "sums over a single patient may leave" in said(BASE + "[privacy]\nminimum_count = 1\n")
    assert "those with ill = 0 count as healthy" in said(BASE + '[cohort.healthy]\ncolumn = "ill"\nequals = 0\n')
    assert parse_campaign(BASE).digest in said(BASE)
    groups = said(BASE + '[groups]\ncolumn = "dx"\nequals = 1\nreference = -1\n')
    assert "patients with dx = 1 with that of patients with dx = -1 inside each site, with age_years held" in groups
    assert "held fixed" not in said(BASE + '[groups]\ncolumn = "dx"\nequals = 1\nreference = 0\ncovariates = []\n')
    assert "phantoms" in said(
        BASE + "[survival]\n[analyses.planted-truth]\nhazard_ratio_per_year = 1.05\ngap_sd_years = 6\n"
    )


@pytest.mark.parametrize(
    ("train_on", "whom"), [("all", "over your patients."), ("healthy", "over your healthy patients.")]
)
def test_says_whose_predicted_ages_of_a_table_are_judged(train_on: str, whom: str) -> None:
    text = said(
        '[campaign]\nname = "a"\npurpose = "Judge what was predicted"\nseed = 1\n[table]\nage = "a"\npredicted = "p"\n'
        f'[cohort]\ntrain_on = "{train_on}"\nhealthy = {{ column = "dx" }}\n[groups]\ncolumn = "healthy"\nequals = 0\n'
        "reference = 1\n"
    )
    assert f"how far the ages that your tables already predict are from true ages, {whom}" in text
