"""Texts of campaign files, and what is said of wrong ones."""

import pytest

from fedage.common.campaign_file import CampaignErrors, parse_campaign

GOOD = """
[campaign]
name = "first-light"
purpose = "Estimate age together and relate the gap to survival"
seed = 7
sites = ["north", "south", "west"]

[estimator]
name = "chest-ca"

[training]
rounds = 3
"""


SURVIVAL = """
[survival]
models = [{ name = "gap", covariates = ["gap_years", "age_years"] }]
"""


def messages(text: str) -> list[str]:
    with pytest.raises(CampaignErrors) as caught:
        parse_campaign(text)
    for problem in caught.value.problems:
        assert "\n" not in problem.message
        assert problem.message.isprintable()
    return [problem.message for problem in caught.value.problems]


def only_message(text: str) -> str:
    found = messages(text)
    assert len(found) == 1, found
    return found[0]


def replaced(old: str, new: str, text: str = GOOD) -> str:
    assert old in text
    return text.replace(old, new)
