"""What the policy decides, rule by rule, and the hours on real clocks."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from fedage.client.consent.policy import Allowed, Facts, Hours, Policy, Refused, decide, facts_of, parse_policy
from fedage.client.consent.policy.hours import NoWindow, is_open, minutes
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN

KEY, OTHER = "ab" * 32, "cd" * 32
NOON = datetime(2025, 1, 31, 12, tzinfo=UTC)  # a Friday
FACTS = Facts(
    kind=TRAIN,
    coordinator=KEY,
    at=NOON,
    estimator="chest-ca",
    modality=("DX",),
    trains=True,
    private=False,
    secure_aggregation=False,
    minimum_count=5,
    largest_share=1.0,
    patients_per_column=0.0,
    exceptions=(),
    data_set=None,
    age_limits_years=(20.0, 80.0),
)

CAMPAIGN = """
[campaign]
name = "chest-ages"
purpose = "How well do three sites read age together?"
seed = 1
[estimator]
name = "chest-ca"
[training]
rounds = 3
[privacy]
minimum_count = 30
"""


def rule(policy_text: str, **changes: Any) -> str | None:
    decision = decide(parse_policy(policy_text), dataclasses.replace(FACTS, **changes))
    if isinstance(decision, Refused):
        assert decision.sentence
        return decision.rule
    return None


@pytest.mark.parametrize(
    ("policy", "changes", "expected"),
    [
        ("", {}, None),
        ("", {"coordinator": None}, None),
        (f'[requests]\ncoordinators = ["{KEY}"]', {}, None),
        (f'[requests]\ncoordinators = ["{OTHER}"]', {}, "coordinator"),
        (f'[requests]\ncoordinators = ["{KEY}"]', {"coordinator": None}, "coordinator"),
        ('[requests]\nkinds = ["describe", "evaluate"]', {}, "message-kind"),
        ('[requests]\nkinds = ["describe", "evaluate"]', {"kind": EVALUATE}, None),
        ("", {"kind": "query.anything"}, "message-kind"),
        ("", {"kind": "describe"}, "message-kind"),
        ('[requests]\nestimators = ["brain"]', {}, "estimator"),
        ('[requests]\nestimators = ["brain"]', {"estimator": None}, None),
        ('[requests]\nestimators = ["brain", "chest-ca"]', {}, None),
        ("", {"exceptions": ("robust-median",)}, "exception"),
        ('[requests]\nexceptions = ["single-site-models"]', {"exceptions": ("robust-median",)}, "exception"),
        ('[requests]\nexceptions = ["robust-median"]', {"exceptions": ("robust-median",)}, None),
        ('[disclosure]\nsecure_aggregation = "required"', {}, "secure-aggregation"),
        ('[disclosure]\nsecure_aggregation = "required"', {"secure_aggregation": True}, None),
        ('[data_sets.mr]\nmodality = ["MR"]', {}, "data-set"),
        ('[data_sets.mr]\nmodality = ["MR"]', {"data_set": "mr"}, "data-set"),
        ('[data_sets.mr]\nmodality = ["MR"]', {"data_set": "ct"}, "data-set"),
        ('[data_sets.mr]\nmodality = ["MR", "DX"]', {}, None),
        ('[data_sets.a]\nmodality = ["DX"]\n[data_sets.b]', {}, "data-set"),
        ('[data_sets.a]\nmodality = ["DX"]\n[data_sets.b]', {"data_set": "b"}, None),
        ("[data_sets.a]\nepsilon = 1\ndelta = 1e-5", {}, "privacy-mode"),
        ("[data_sets.a]\nepsilon = 1\ndelta = 1e-5", {"private": True}, None),
        ("[data_sets.a]\nepsilon = 1\ndelta = 1e-5", {"trains": False}, None),
        (
            '[requests]\nkinds = ["describe", "evaluate"]\n[data_sets.a]\nepsilon = 1\ndelta = 1e-5',
            {"kind": EVALUATE},
            None,
        ),
        ('[hours]\ntime_zone = "UTC"\nfriday = ["12:00-13:00"]', {}, None),
        ('[hours]\ntime_zone = "UTC"\nfriday = ["13:00-14:00"]', {}, "hours"),
        ('[hours]\ntime_zone = "UTC"\nfriday = ["13:00-14:00"]', {"kind": DESCRIBE}, None),
        ('[hours]\ntime_zone = "UTC"\nfriday = ["13:00-14:00"]', {"kind": ANALYSE}, "hours"),
    ],
)
def test_each_rule_refuses_what_it_is_about(policy: str, changes: dict[str, Any], expected: str | None) -> None:
    assert rule(policy, **changes) == expected


@pytest.mark.parametrize(("site", "campaign", "effective"), [(10, 5, 10), (10, 30, 30), (1, 1, 1)])
def test_the_larger_minimum_counts(site: int, campaign: int, effective: int) -> None:
    policy = parse_policy(f"[disclosure]\nminimum_count = {site}")
    decision = decide(policy, dataclasses.replace(FACTS, minimum_count=campaign))
    assert isinstance(decision, Allowed)
    assert decision.minimum_count == effective


def test_a_stricter_policy_never_allows_more() -> None:
    """Random facts against random policies: taking a permission away turns no refusal into an answer."""
    chance = random.Random(4)
    for _ in range(300):
        kinds = ["describe", *chance.sample(["train", "evaluate", "analyse"], chance.randint(1, 3))]
        policy = Policy.model_validate(
            {
                "requests": {"kinds": tuple(kinds), "estimators": ("chest-ca", "brain")},
                "disclosure": {"secure_aggregation": "optional"},
            }
        )
        facts = dataclasses.replace(
            FACTS,
            kind=chance.choice([DESCRIBE, TRAIN, EVALUATE, ANALYSE, "x"]),
            estimator=chance.choice(["chest-ca", "brain", "other"]),
            secure_aggregation=chance.random() < 0.5,
        )
        stricter = Policy.model_validate(
            {
                "requests": {"kinds": tuple(kinds[:-1]), "estimators": ("brain",), "coordinators": (KEY,)},
                "disclosure": {"secure_aggregation": chance.choice(["optional", "required"])},
            }
        )
        if isinstance(decide(policy, facts), Refused):
            assert isinstance(decide(stricter, facts), Refused)


@pytest.mark.parametrize("fact", [item.name for item in dataclasses.fields(Facts)])
def test_no_fact_is_taken_for_granted(fact: str) -> None:
    """A fact that a caller forgets would be judged by a value that asks for less than the campaign file does."""
    others = {item.name: getattr(FACTS, item.name) for item in dataclasses.fields(Facts) if item.name != fact}
    with pytest.raises(TypeError, match=fact):
        Facts(**others)


def test_facts_come_from_the_campaign_file() -> None:
    campaign = parse_campaign(CAMPAIGN)
    facts = facts_of(campaign, kind=TRAIN, coordinator=KEY, at=NOON, modality=("CR", "DX"))
    assert facts == Facts(
        age_limits_years=(campaign.cohort.age_min_years, campaign.cohort.age_max_years),
        kind=TRAIN,
        coordinator=KEY,
        at=NOON,
        estimator="chest-ca",
        modality=("CR", "DX"),
        trains=True,
        private=False,
        secure_aggregation=False,
        exceptions=(),
        data_set=None,
        minimum_count=30,
        largest_share=0.5,
        patients_per_column=2.0,
    )
    chosen = parse_campaign(CAMPAIGN + '[cohort]\nmodality = ["CR"]')
    assert facts_of(chosen, kind=TRAIN, coordinator=KEY, at=NOON, modality=("DX",)).modality == ("CR",)
    assert hashlib.sha256(CAMPAIGN.encode()).hexdigest() == campaign.digest


def test_what_a_policy_says_of_models_is_not_about_a_campaign_that_makes_none() -> None:
    campaign = parse_campaign(
        '[campaign]\nname = "who-falls-ill"\npurpose = "Does a gap that is there already tell who falls ill?"\n'
        'seed = 1\n[table]\nage = "age"\n[survival]\ntable_times_years = [1, 2]\n[[survival.models]]\nname = "gap"\n'
        'covariates = ["gap_years"]\n'
    )
    facts = facts_of(campaign, kind=ANALYSE, coordinator=KEY, at=NOON)
    assert (facts.estimator, facts.trains) == (None, False)
    policy = '[requests]\nestimators = ["brain"]\n[data_sets.a]\nepsilon = 1\ndelta = 1e-5'
    assert isinstance(decide(parse_policy(policy), facts), Allowed)


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (datetime(2025, 1, 31, 17, 59, tzinfo=BERLIN), False),
        (datetime(2025, 1, 31, 18, 0, tzinfo=BERLIN), True),
        (datetime(2025, 1, 31, 17, 0, tzinfo=UTC), True),
        (datetime(2025, 2, 1, 5, 59, 59, tzinfo=BERLIN), True),
        (datetime(2025, 2, 1, 6, 0, tzinfo=BERLIN), False),
        (datetime(2025, 1, 31, 3, 0, tzinfo=BERLIN), False),  # Thursday's night is not open
        (datetime(2025, 2, 2, 0, 0, tzinfo=BERLIN), True),
        (datetime(2025, 2, 2, 23, 59, 59, tzinfo=BERLIN), True),
        (datetime(2025, 2, 3, 0, 0, tzinfo=BERLIN), True),  # Sunday's late window goes on
        (datetime(2025, 2, 3, 1, 0, tzinfo=BERLIN), False),
    ],
)
def test_hours_on_the_sites_clock(at: datetime, expected: bool) -> None:
    hours = Hours(time_zone="Europe/Berlin", friday=("18:00-06:00",), sunday=("00:00-24:00", "23:00-01:00"))
    assert is_open(hours, at) is expected


def test_hours_against_a_slow_loop_over_a_week_with_a_change_of_the_clock() -> None:
    """Every half hour of the week in which summer time begins, against windows written out minute by minute."""
    windows = {0: ("09:00-12:30",), 4: ("22:00-03:00", "13:00-14:00"), 5: ("23:30-23:00",), 6: ("02:00-04:00",)}
    names = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
    hours = Hours(time_zone="Europe/Berlin", **{names[day]: value for day, value in windows.items()})  # type: ignore[arg-type]
    opened = set()
    for day, texts in windows.items():
        for text in texts:
            (h, m), (eh, em) = (map(int, part.split(":")) for part in text.split("-"))
            minute, end = h * 60 + m, eh * 60 + em
            while minute != end:
                opened.add(((day + minute // 1440) % 7, minute % 1440))
                minute += 1
                if minute == 1440 and end < h * 60 + m:
                    opened |= {((day + 1) % 7, other) for other in range(end)}
                    break
    moment = datetime(2025, 3, 27, tzinfo=UTC)
    for _ in range(7 * 48):
        local = moment.astimezone(BERLIN)
        assert is_open(hours, moment) is ((local.weekday(), local.hour * 60 + local.minute) in opened), local
        moment += timedelta(minutes=30)


def test_windows_are_two_different_times() -> None:
    assert minutes("00:00-24:00") == (0, 1440)
    assert minutes("18:30-06:00") == (18 * 60 + 30, 30 * 60)
    for text in (
        "",
        "8:00-9:00",
        "08:00",
        "08:00-08:00",
        "25:00-26:00",
        "24:00-24:00",
        "08:00 - 09:00",
        "08:00-09:00\n",
    ):
        with pytest.raises(NoWindow):
            minutes(text)
    assert minutes("22:00-24:00") == minutes("22:00-00:00")
