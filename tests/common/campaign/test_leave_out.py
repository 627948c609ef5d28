"""Files that leave one site out: each trains with all others and is the same otherwise, or says why it cannot be."""

from __future__ import annotations

import pytest

from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.leave_out import without_each_site
from fedage.common.campaign_file.new import Answers, campaign_text
from fedage.common.errors import FedAgeError
from fedage.deploy.demo.brains import planted_in_brains
from fedage.deploy.demo.kinds import demo_of

DEMO = demo_of("brain-contrastive").campaign_file(
    planted_in_brains(), sites=("harbour", "north", "valley"), seed=1, quick=True
)
PLAIN = """\
[campaign]   # of three
purpose = "Leave one hospital out at a time"
name = "heads"
seed = 1
sites = ["a", "b", "c"]
[estimator]
name = "brain-contrastive"
[training]
rounds = 2
"""
FOLDS = PLAIN + "[validation]\nfolds = 3\nfinal_model = true\n"
SPACED = PLAIN + "[ validation . fractions ]\ntrain = 0.5\nvalidation = 0.2\ntest = 0.3\n"
INLINE = """\
campaign = { name = "heads", purpose = "Leave one hospital out at a time", seed = 1, sites = ["a", "b", "c"] }
estimator = { name = "brain-contrastive" }
training = { rounds = 2 }
"""


def commented() -> str:
    text = campaign_text(Answers(name="heads", purpose="Leave one out at a time", estimator="brain-sfcn"))
    return text.replace('#sites = ["north", "south"]', 'sites = ["a", "b", "c"]', 1)


@pytest.mark.parametrize(
    "text", [PLAIN, FOLDS, SPACED, DEMO, commented()], ids=["plain", "folds", "spaced", "demo", "commented"]
)
def test_each_site_validates_once_what_all_others_train_and_nothing_else_differs(text: str) -> None:
    whole = parse_campaign(text)
    made = without_each_site(text)
    assert tuple(made) == whole.campaign.sites
    for site, one in made.items():
        campaign = parse_campaign(one)
        assert campaign.validation is not None
        assert campaign.validation.sites == (site,)
        assert campaign.campaign.name == f"{whole.campaign.name}-without-{site}"
        assert campaign.campaign.sites == whole.campaign.sites
        assert campaign.estimator == whole.estimator
        assert campaign.training == whole.training
        assert {line for line in text.splitlines() if line.startswith("#")} <= set(one.splitlines())
    assert len({parse_campaign(one).digest for one in made.values()}) == len(made)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PLAIN.replace('"a", "b", "c"', '"a", "b"'), "at least 3 sites"),
        (PLAIN.replace('sites = ["a", "b", "c"]\n', ""), "at least 3 sites"),
        (FOLDS + 'sites = ["a"]\n', "validation.sites has a already"),
        (PLAIN.replace('"heads"', f'"{"h" * 60}"'), "more than 63 characters"),
        (INLINE, "a key a line"),
        (PLAIN.replace("rounds = 2\n", "rounds = 2\nquorum = 3\n[privacy]\nsecure_aggregation = true\n"), "for good"),
    ],
)
def test_a_file_of_which_no_site_can_be_left_out_is_refused_with_the_mend(text: str, said: str) -> None:
    with pytest.raises(FedAgeError, match=said):
        without_each_site(text)


def test_a_wrong_file_is_told_as_ever() -> None:
    with pytest.raises(CampaignErrors, match=r"training\.rounds = -2"):
        without_each_site(PLAIN.replace("rounds = 2", "rounds = -2"))
