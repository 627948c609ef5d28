"""`fedage campaign new` as typed: with flags, with a terminal, and what it refuses."""

import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fedage.deploy.cli import main
from fedage.deploy.machine.campaign_file import load_campaign


@pytest.fixture
def new(monkeypatch, capsys, tmp_path):
    """Run `fedage campaign new` in an empty folder; returns status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["fedage", "campaign", "new", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return int(end.value.code or 0), told.out, told.err

    return run


def test_flags_alone_write_a_file_that_is_right(new) -> None:
    status, out, err = new(
        "--estimator", "chest-ca", "--name", "lungs", "--purpose", "Estimate age from radiographs", "--seed", 3,
        "--sites", "north, south", "--time", "years", "--out", "lungs.toml",
    )  # fmt: skip
    assert (status, err) == (0, "")
    campaign = load_campaign("lungs.toml")
    assert f"lungs.toml: ok, digest {campaign.digest}" in out
    assert campaign.campaign.sites == ("north", "south")
    assert campaign.survival.time == "years"
    assert campaign.survival.models[0].covariates == ("gap_years", "age_years")


def test_a_file_is_never_replaced_without_force(new) -> None:
    Path("campaign.toml").write_text("mine")
    status, _, err = new("--analysis-only", "--yes")
    assert status == 2
    assert err == "fedage: campaign.toml exists; give another file with --out, or --force to replace it\n"
    assert Path("campaign.toml").read_text() == "mine"
    assert new("--analysis-only", "--yes", "--force")[0] == 0
    assert load_campaign("campaign.toml").estimator is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ((), "give --estimator age-ensemble | brain-clinical2d | brain-contrastive"),
        (("--yes",), "or --analysis-only"),
        (
            ("--estimator", "chst-ca"),
            "--estimator chst-ca is not registered; allowed are age-ensemble, brain-clinical2d",
        ),
        (("--estimator", "chest-ca", "--analysis-only"), "exclude each other"),
        (("--estimator", "chest-ca", "--features", "x", "--id", "s"), "--id, --features: only for campaigns on tables"),
        (("--analysis-only", "--out", "no/such/file.toml"), "cannot be written (No such file or directory)"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(new, flags: tuple[str, ...], says: str) -> None:
    status, out, err = new(*flags)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_wrong_answers_are_all_told_at_once_and_nothing_is_written(new) -> None:
    status, _, err = new("--analysis-only", "--name", "My Name", "--sites", "North", "--seed", -1)
    assert status == 2
    for key in ("campaign.name", "campaign.sites[1]", "campaign.seed"):
        assert f"- {key} = " in err
    assert list(Path().iterdir()) == []


def at_a_terminal(folder: Path, said: bytes, *flags: str) -> str:
    """What is asked of somebody who types this; that the file is written is checked."""
    here, there = pty.openpty()
    command = [sys.executable, "-m", "fedage.deploy", "campaign", "new", *flags]
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, cwd=folder)
    os.close(there)
    os.write(here, said)
    timer = threading.Timer(40, process.kill)
    timer.start()
    heard = b""
    try:
        while chunk := os.read(here, 4096):
            heard += chunk
    except OSError:  # the other end is closed
        pass
    status = process.wait(60)
    timer.cancel()
    assert status == 0, heard.decode()
    return heard.decode()


def test_at_a_terminal_it_asks_and_asks_again_what_is_wrong(tmp_path: Path) -> None:
    said = b"analysis-nothing\nanalysis-only\nsurvival\nMy Name\nmine\n\nnorth,south\nage at exam\n\n\n\nstatus\n"
    said += b"age_years,is_male\n"
    heard = at_a_terminal(tmp_path, said, "--seed", "5")
    assert "'analysis-nothing' is none of" in heard
    assert "must be 1 to 63 lower-case letters, digits and hyphens" in heard
    campaign = load_campaign(tmp_path / "campaign.toml")
    assert campaign.estimator is None
    assert (campaign.campaign.name, campaign.campaign.seed) == ("mine", 5)
    assert campaign.campaign.sites == ("north", "south")
    assert (campaign.table.age, campaign.table.id, campaign.table.sex) == ("age at exam", None, None)
    assert (campaign.survival.time, campaign.survival.event) == ("time_years", "status")
    assert campaign.survival.models[0].covariates == ("age_years", "is_male")


def test_at_a_terminal_groups_and_statistics_ask_nothing_about_follow_up(tmp_path: Path) -> None:
    said = b"analysis-only\nstatistics, groups\n\nid\nsex\nbrain_age\nDX_GROUP\n2\n1\nage_years,is_male\n"
    heard = at_a_terminal(
        tmp_path, said, "--seed", "5", "--sites", "a,b", "--age", "AGE", "--purpose", "Look at them all"
    )
    assert "follow-up" not in heard
    assert "Cox" not in heard
    campaign = load_campaign(tmp_path / "campaign.toml")
    assert campaign.survival is None
    assert (campaign.table.predicted, campaign.table.age) == ("brain_age", "AGE")
    groups = campaign.groups
    assert (groups.column, groups.equals, groups.reference) == ("DX_GROUP", 2, 1)
    assert groups.covariates == ("age_years", "is_male")


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        (("--time", "t"), "s"),
        (("--analyses", "survival"), "s"),
        (("--group-column", "dx", "--equals", 1, "--reference", -1), "g"),
        (("--analyses", "groups", "--age", "-"), "g"),
        (("--predicted", "p"), "p"),
        (("--analyses", "statistics"), "p"),
        (("--group-column", "dx", "--predicted", "p"), "gp"),
        (("--analyses", "survival,groups", "--predicted", "p"), "sgp"),
        ((), "s"),
    ],
)
def test_each_analysis_alone_and_together(new, flags: tuple[object, ...], there: str) -> None:
    status, _, err = new("--analysis-only", *flags)
    assert (status, err) == (0, "")
    campaign = load_campaign("campaign.toml")
    assert campaign.estimator is None
    assert (campaign.survival is not None) == ("s" in there)
    assert (campaign.groups is not None) == ("g" in there)
    assert (campaign.table.predicted is not None) == ("p" in there)


def test_what_is_analysed_implies_that_nothing_is_trained(new) -> None:
    assert new("--analyses", "statistics", "--predicted", "p", "--yes")[0] == 0
    campaign = load_campaign("campaign.toml")
    assert campaign.estimator is None
    assert campaign.table.predicted == "p"


def test_groups_go_with_an_estimator_too(new) -> None:
    assert new("--estimator", "table-ridge", "--group-column", "DX_GROUP", "--reference", -1)[0] == 0
    campaign = load_campaign("campaign.toml")
    assert (campaign.groups.column, campaign.groups.equals, campaign.groups.reference) == ("DX_GROUP", 1, -1)
    assert campaign.groups.covariates == ("age_years",)
    assert campaign.survival is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--estimator", "table-ridge", "--predicted", "p"), "--predicted: only with --analysis-only"),
        (("--estimator", "table-ridge", "--analyses", "groups"), "--analyses: only with --analysis-only"),
        (
            ("--analysis-only", "--analyses", "grups"),
            "--analyses grups: 'grups' is none of survival, groups, statistics",
        ),
        (("--analysis-only", "--features", "x*"), "--features: only for an estimator"),
        (("--analysis-only", "--group-column", "x", "--equals", 0), "groups.reference"),
    ],
)
def test_flags_that_do_not_fit_are_told(new, flags: tuple[str, ...], says: str) -> None:
    status, _, err = new(*flags)
    assert status == 2
    assert says in err
    assert list(Path().iterdir()) == []
