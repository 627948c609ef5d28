"""The policy file: every mistake at once, the default when there is none, and a file that changes under the agent."""

from __future__ import annotations

import re
import stat
import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fedage.client.consent.policy import (
    DEFAULT_TEXT,
    Allowed,
    Policy,
    PolicyErrors,
    PolicyFile,
    Refused,
    load_policy,
    parse_policy,
    policy_text,
    write_default,
)
from tests.client.policy.test_decide import FACTS

FULL = """
[requests]
coordinators = ["{key}"]
kinds = ["describe", "evaluate", "analyse"]
estimators = ["chest-ca"]
exceptions = ["robust-median"]
[approval]
mode = "automatic"
[disclosure]
minimum_count = 25
secure_aggregation = "required"
[hours]
time_zone = "Europe/Berlin"
friday = ["18:00-06:00"]
sunday = ["00:00-24:00"]
[data_sets.chest]
modality = ["CR", "DX"]
age_min_years = 18
age_max_years = 90
manufacturer = ["Maker, Inc."]
epsilon = 8.0
delta = 1e-5
[data_sets.mr]
modality = ["MR"]
""".replace("{key}", "ab" * 32)

FAULTS = {
    "[disclosre]\nminimum_count = 10": "disclosre",
    '[requests]\nkinds = ["describe", "trian"]': "requests.kinds[2]",
    '[requests]\nkinds = ["train"]': "requests.kinds",
    "[requests]\nkinds = []": "requests.kinds",
    '[requests]\ncoordinators = ["AB"]': "requests.coordinators[1]",
    '[requests]\nestimators = ["Chest CA"]': "requests.estimators[1]",
    '[requests]\nexceptions = ["everything"]': "requests.exceptions[1]",
    "[requests]\ncolour = 3": "requests.colour",
    '[approval]\nmode = "auto"': "approval.mode",
    "[disclosure]\nminimum_count = 0": "disclosure.minimum_count",
    "[disclosure]\nminimum_count = 10.0": "disclosure.minimum_count",
    "[disclosure]\nsecure_aggregation = true": "disclosure.secure_aggregation",
    "minimum_count = 3": "minimum_count",
    '[hours]\nmonday = ["08:00-12:00"]': "hours.time_zone",
    '[hours]\ntime_zone = "Mars/Olympus"\nmonday = ["08:00-12:00"]': "hours.time_zone",
    '[hours]\ntime_zone = "../../etc/passwd"\nmonday = ["08:00-12:00"]': "hours.time_zone",
    '[hours]\ntime_zone = "Europe"\nmonday = ["08:00-12:00"]': "hours.time_zone",
    '[hours]\ntime_zone = "UTC"\nmonday = ["8-12"]': "hours.monday[1]",
    '[hours]\ntime_zone = "UTC"\nmonday = ["00:00-24:00", "09:00-09:00"]': "hours.monday[2]",
    '[hours]\ntime_zone = "UTC"\nmonday = ["08:00-24:30"]': "hours.monday[1]",
    '[hours]\ntime_zone = "UTC"': "hours",
    "data_sets = 3": "data_sets",
    "[data_sets]": "data_sets",
    "[data_sets.Big]": "data_sets.Big",
    "[data_sets.a]\nepsilon = 3": "data_sets.a.delta",
    "[data_sets.a]\ndelta = 1e-5": "data_sets.a.epsilon",
    "[data_sets.a]\nepsilon = 0\ndelta = 1e-5": "data_sets.a.epsilon",
    "[data_sets.a]\nepsilon = inf\ndelta = 1e-5": "data_sets.a.epsilon",
    "[data_sets.a]\nepsilon = 1\ndelta = 0.5": "data_sets.a.delta",
    '[data_sets.a]\nmodality = ["mg"]': "data_sets.a.modality[1]",
    "[data_sets.a]\nage_min_years = 70\nage_max_years = 20": "data_sets.a.age_min_years",
    "[data_sets.a]\nage_max_years = 0": "data_sets.a.age_min_years",
    "[data_sets.a]\nminimum_count = 3": "data_sets.a.minimum_count",
    "[data_sets]\na = 4": "data_sets.a",
    "[approval]\nmode = ": "",
}


def problems(text: str) -> list[tuple[str, str]]:
    with pytest.raises(PolicyErrors) as refused:
        parse_policy(text)
    return [(problem.key, problem.message) for problem in refused.value.problems]


def test_a_full_policy_is_read_as_it_stands() -> None:
    policy = parse_policy(FULL)
    assert policy.requests.kinds == ("describe", "evaluate", "analyse")
    assert policy.disclosure.minimum_count == 25
    assert policy.hours is not None
    assert policy.hours.windows(4) == ("18:00-06:00",)
    assert list(policy.data_sets) == ["chest", "mr"]
    assert policy.data_sets["chest"].epsilon == 8.0
    assert policy.data_sets["mr"].epsilon is None


@pytest.mark.parametrize(("text", "key"), FAULTS.items())
def test_a_mistake_is_one_line_with_its_key_and_the_mend(text: str, key: str) -> None:
    found = problems(text)
    assert [found_key for found_key, _ in found] == [key], found
    message = found[0][1]
    assert "\n" not in message
    assert ";" in message or "?" in message  # what is wrong; then what to do


def test_all_mistakes_are_told_at_once() -> None:
    """Faults of different tables in one file give the same messages as each alone."""
    texts = [
        '[requests]\nkinds = ["describe", "trian"]\ncolour = 3',
        '[approval]\nmode = "auto"',
        "[disclosure]\nminimum_count = 0",
        '[hours]\ntime_zone = "UTC"\nmonday = ["8-12"]',
        "[data_sets.a]\nepsilon = 3",
        "[data_sets.b]\nage_min_years = 70\nage_max_years = 20",
    ]
    assert sorted(problems("\n".join(texts))) == sorted(problem for text in texts for problem in problems(text))
    assert len(problems("\n".join(texts))) == 7


def test_a_line_that_cannot_be_read_is_not_reported_as_missing() -> None:
    assert [key for key, _ in problems("[data_sets.x]\nepsilon = oops\ndelta = 1e-5")] == [""]
    assert [key for key, _ in problems('[hours]\ntime_zone = Berlin\nmonday = ["00:00-24:00"]')] == [""]


def test_the_default_file_is_the_default_policy_and_every_commented_line_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    assert load_policy(path) == Policy()
    write_default(path)
    assert load_policy(path) == Policy()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_default(path)
    uncommented = re.sub(r"^# (?=\[|\w+ = )", "", DEFAULT_TEXT, flags=re.MULTILINE)
    policy = parse_policy(uncommented)
    assert policy.hours is not None
    assert policy.data_sets["mammograms"].epsilon == 8.0
    named = {key for table in tomllib.loads(uncommented).values() for key in table}
    for table in (policy.requests, policy.approval, policy.disclosure):
        assert set(type(table).model_fields) <= named


def test_the_default_is_safe() -> None:
    policy = Policy()
    assert policy.approval.mode == "manual"
    assert policy.disclosure.minimum_count == 10
    assert policy.requests.exceptions == ()
    assert all(data_set.epsilon is None for data_set in policy.data_sets.values())


def test_a_file_that_cannot_be_read_is_no_default(tmp_path: Path) -> None:
    (tmp_path / "policy.toml").mkdir()
    with pytest.raises(PolicyErrors, match="cannot be read"):
        load_policy(tmp_path / "policy.toml")
    latin = tmp_path / "latin.toml"
    latin.write_bytes("# Größe".encode("latin-1"))
    with pytest.raises(PolicyErrors, match="UTF-8"):
        load_policy(latin)


def test_a_change_acts_at_once_and_a_mistake_refuses_everything(tmp_path: Path) -> None:
    policy = PolicyFile(tmp_path)
    facts = replace(FACTS, at=datetime(2025, 1, 31, tzinfo=UTC))
    assert isinstance(policy.decide(facts), Allowed)
    (tmp_path / "policy.toml").write_text('[requests]\nkinds = ["describe"]')
    assert policy.decide(facts) == Refused(rule="message-kind", sentence="this site answers describe messages only")
    (tmp_path / "policy.toml").write_text('[requests]\nkinds = ["descry"]')
    refused = policy.decide(facts)
    assert isinstance(refused, Refused)
    assert refused.rule == "policy-unreadable"
    (tmp_path / "policy.toml").write_text("# what it is by default\n")
    assert isinstance(policy.decide(facts), Allowed)
    (tmp_path / "policy.toml").unlink()
    refused = policy.decide(facts)
    assert isinstance(refused, Refused), "a policy that vanishes is not the default one"
    assert refused.rule == "policy-unreadable"


def test_in_words_says_what_the_file_says() -> None:
    sentences = "\n".join(policy_text(parse_policy(FULL)))
    for said in (
        "ab" * 8,
        "will not train models",
        "chest-ca",
        "without a person",
        "single model updates",
        "fewer than 25 patients",
        "must use secure aggregation",
        "Europe/Berlin): Friday 18:00-06:00; Sunday 00:00-24:00",
        "CR or DX images by Maker, Inc. of patients aged 18 to 90 years",
        "ε = 8 at δ = 1e-05",
        "may be in both chest and mr",
    ):
        assert said in sentences, said
    plain = "\n".join(policy_text(Policy()))
    for said in ("pinned", "A person approves", "fewer than 10", "at any time", "no ε budget"):
        assert said in plain, said
    bare = parse_policy("[disclosure]\nminimum_count = 1")
    assert "no minimum count" in "\n".join(policy_text(bare))
