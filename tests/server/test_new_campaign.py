"""`fedage campaign new` as typed: with flags, with a terminal, and what it refuses."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from fedage.common.campaign import load_campaign
from fedage.deploy.cli import main


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
        ((), "give --estimator chest-ca"),
        (("--yes",), "or --analysis-only"),
        (("--estimator", "chst-ca"), "--estimator chst-ca is not registered; allowed are chest-ca"),
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


def test_at_a_terminal_it_asks_and_asks_again_what_is_wrong(tmp_path: Path) -> None:
    here, there = pty.openpty()
    command = [sys.executable, "-m", "fedage.deploy", "campaign", "new", "--seed", "5"]
    said = (
        b"analysis-nothing\nanalysis-only\nMy Name\nmine\n\nnorth,south\nage at exam\n\n\n\nstatus\nage_years,is_male\n"
    )
    process = subprocess.Popen(command, stdin=there, stdout=there, stderr=there, cwd=tmp_path)
    os.close(there)
    os.write(here, said)
    heard = b""
    try:
        while chunk := os.read(here, 4096):
            heard += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(60) == 0, heard.decode()
    assert b"'analysis-nothing' is none of" in heard
    assert b"must be 1 to 63 lower-case letters, digits and hyphens" in heard
    campaign = load_campaign(tmp_path / "campaign.toml")
    assert campaign.estimator is None
    assert (campaign.campaign.name, campaign.campaign.seed) == ("mine", 5)
    assert campaign.campaign.sites == ("north", "south")
    assert (campaign.table.age, campaign.table.id, campaign.table.sex) == ("age at exam", None, None)
    assert (campaign.survival.time, campaign.survival.event) == ("time_years", "status")
    assert campaign.survival.models[0].covariates == ("age_years", "is_male")
