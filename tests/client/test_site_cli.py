"""What a hospital types, at a real home: campaigns in words, approvals that act at once, the audit log, the policy."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from fedage.client.cli.main import site
from fedage.client.consent.policy import DEFAULT_TEXT
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.protocol.messages import DESCRIBE, TRAIN
from tests.client.hospital import CAMPAIGN, PATIENTS, POLICY, Hospital, Template


@pytest.fixture
def hospital(template: Template, tmp_path: Path) -> Hospital:
    return template.copy(tmp_path, approved=False)


def typed(hospital: Hospital, *words: str) -> Result:
    return CliRunner().invoke(site, [*words, "--home", str(hospital.home)])


def said(hospital: Hospital, *words: str) -> str:
    done = typed(hospital, *words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def mistake(hospital: Hospital, *words: str) -> str:
    """The one line that a person reads."""
    done = typed(hospital, *words)
    assert isinstance(done.exception, FedAgeError), (done.output, done.exception)
    assert "\n" not in str(done.exception)
    return str(done.exception)


def test_an_offer_is_read_approved_and_revoked_beside_a_running_agent(hospital: Hospital) -> None:
    assert "no campaign" in said(hospital, "campaigns")
    assert hospital.ask().rule == "not-approved"
    text = said(hospital, "campaigns")
    for words in (
        f"{hospital.campaign.digest}  offered  front-door",
        f"fingerprint {hospital.site.rules.coordinator}",
        "What leaves your site",
        "no differential privacy",
        "Your policy allows it; nothing leaves with fewer than 3 patients behind it.",
        f"Patients: {PATIENTS} of data set all as the store is now.",
        "has no ε budget",
    ):
        assert words in text
    start = hospital.campaign.digest[:8]
    assert f"{PATIENTS} patients of data set all" in said(hospital, "approve", start)
    assert "frozen when you approved it" in said(hospital, "campaigns")
    assert hospital.ask(TRAIN, round=1).status == "ok"
    assert "take that back with fedage site revoke" in mistake(hospital, "decline", start)
    said(hospital, "revoke", start)
    assert hospital.ask(TRAIN, round=2).rule == "declined"
    assert "declined  front-door" in said(hospital, "campaigns")
    assert "no approved campaign has a digest" in mistake(hospital, "revoke", start)
    hospital.must_be_intact()


def test_declining_and_mistyping(hospital: Hospital) -> None:
    hospital.ask()
    assert "begin" in mistake(hospital, "approve", "ffff0000")
    said(hospital, "decline", hospital.campaign.digest)
    assert "declined" in hospital.ask().reason
    kinds = [line.entry.kind for line in hospital.lines()]
    assert kinds.count("decline") == 1


def test_a_file_is_approved_and_a_data_set_chosen(hospital: Hospital, tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(CAMPAIGN)
    hospital.policy("[data_sets.old]\nage_min_years = 65\n[data_sets.all]\n" + POLICY)
    assert "--data-set old or all" in mistake(hospital, "approve", str(file))
    assert "of data set old" in said(hospital, "approve", str(file), "--data-set", "old")
    assert 3 <= hospital.ask().info["patients"] < PATIENTS
    hospital.policy('[requests]\nestimators = ["brain-cnn"]\n')
    assert "rule estimator" in mistake(hospital, "approve", str(file))
    assert "Your policy refuses it (rule estimator)" in said(hospital, "campaigns")
    hospital.policy("[disclosure]\nminimum = 3\n")
    assert "rule policy-unreadable" in mistake(hospital, "approve", str(file))


def test_what_a_policy_refuses_of_a_campaign_is_said_before_approving(hospital: Hospital) -> None:
    hospital.ask()
    hospital.policy('[requests]\nkinds = ["describe", "evaluate", "analyse"]\n' + POLICY)
    assert "refuses its train messages now (rule message-kind)" in said(hospital, "campaigns")
    hospital.policy("[data_sets.all]\nepsilon = 4.0\ndelta = 1e-5\n" + POLICY)
    assert "(rule privacy-mode)" in said(hospital, "campaigns")


def test_the_audit_log_is_verified_shown_and_exported(hospital: Hospital, tmp_path: Path) -> None:
    said(hospital, "approve", str(write(tmp_path / "campaign.toml", CAMPAIGN)))
    replies = [hospital.ask(), hospital.ask(TRAIN, round=1), hospital.ask(TRAIN, fold=4)]
    heads = write(tmp_path / "heads.jsonl", "".join(f"{reply.audit}\n" for reply in replies))
    lines = len(hospital.lines())
    assert f"intact: {lines} lines, held against 4 kept heads" in said(
        hospital, "audit", "verify", "--head", str(heads)
    )
    shown = said(hospital, "audit", "show").splitlines()
    assert len(shown) == lines
    assert "refused (fold)" in shown[-1]
    assert "smallest cell" in next(line for line in shown if " out  train" in line)
    assert len(said(hospital, "audit", "show", "--direction", "out", "--kind", DESCRIBE).splitlines()) == 1
    assert len(said(hospital, "audit", "show", "--rule", "fold").splitlines()) == 1
    assert said(hospital, "audit", "show", "--since", "2999-01-01T00:00Z") == ""
    table = tmp_path / "audit.csv"
    said(hospital, "audit", "show", "--csv", str(table), "--outcome", "refused")
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["rule"] for row in rows] == ["fold"]
    assert "cannot be written" in mistake(hospital, "audit", "show", "--csv", str(tmp_path / "none" / "audit.csv"))
    assert "must be one of in, out, site" in mistake(hospital, "audit", "show", "--direction", "up")
    assert "its zone" in mistake(hospital, "audit", "show", "--since", "2026-01-01")
    assert "cannot be read" in mistake(hospital, "audit", "verify", "--head", str(tmp_path / "none"))

    hospital.site.rules.close()
    with sqlite3.connect(hospital.home / "audit.db") as connection:
        connection.execute("UPDATE audit SET body = replace(body, '\"round\":1', '\"round\":2') WHERE sequence > 3")
        connection.execute("DELETE FROM audit WHERE sequence = (SELECT max(sequence) FROM audit)")
    done = typed(hospital, "audit", "verify", "--head", str(heads))
    assert done.exit_code == 1
    assert "edited: line" in done.output
    assert "truncated: the log ends" in done.output


def test_a_policy_is_written_with_the_home_shown_and_checked(hospital: Hospital, tmp_path: Path) -> None:
    assert "exists" in mistake(hospital, "policy", "new")
    assert "fewer than 3 patients" in said(hospital, "policy", "show")
    assert "no mistake" in said(hospital, "policy", "check")
    (hospital.home / "policy.toml").unlink()
    assert "fewer than 10 patients" in said(hospital, "policy", "show")
    assert "takes effect at once" in said(hospital, "policy", "new")
    assert (hospital.home / "policy.toml").read_text() == DEFAULT_TEXT
    bad = write(tmp_path / "bad.toml", "[requests]\nkind = 1\n[ours]\n")
    done = CliRunner().invoke(site, ["policy", "check", str(bad)])
    assert isinstance(done.exception, FedAgeError)
    assert "2 problems" in str(done.exception)


def test_making_a_home_writes_its_policy_once(template: Template, tmp_path: Path) -> None:
    trusted = template.folder / "coordinator"
    words = [
        *("init", "--home", str(tmp_path / "site"), "--name", "south", "--coordinator", "localhost:8443"),
        *("--ca", str(trusted / "ca.crt"), "--coordinator-key", str(trusted / "coordinator.pub")),
    ]
    assert CliRunner().invoke(site, words).exit_code == 0
    file = tmp_path / "site" / "policy.toml"
    assert file.read_text() == DEFAULT_TEXT
    file.write_text(POLICY)
    assert CliRunner().invoke(site, words).exit_code == 0
    assert file.read_text() == POLICY


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


FOLDED = CAMPAIGN.replace(
    "[validation.fractions]\ntrain = 0.4\nvalidation = 0.3\ntest = 0.3", "[validation]\nfolds = {folds}"
)
HEALTHY = '[cohort]\ntrain_on = "healthy"\n[cohort.healthy]\ncolumn = "well"\n'


@pytest.mark.parametrize(
    ("folds", "minimum", "rest", "words"),
    [
        (20, 3, "", "They are held out in 13 of 20 folds, and all who may train do so in the others."),
        (5, 10, "", "They are held out in 4 of 5 folds, and all who may train do so in the others."),
        (5, 10, HEALTHY, "They are held out in at most 4 of 5 folds, and all who may train do so in the others."),
        (
            5,
            21,
            "",
            "They are too few to train with 5 folds: a site that trains holds out at least 21 patients in 2 folds",
        ),
        (5, 3, "", ""),
    ],
)
def test_an_offer_with_folds_says_in_how_many_the_patients_are_held_out(
    hospital: Hospital, folds: int, minimum: int, rest: str, words: str
) -> None:
    hospital.policy(f"[disclosure]\nminimum_count = {minimum}\n")
    hospital.campaign = parse_campaign(FOLDED.format(folds=folds) + rest)
    hospital.ask()
    text = " ".join(said(hospital, "campaigns").split())
    assert words in text
    assert ("They are" in text) == bool(words)
