"""The command line as a person meets it when something is wrong: one line, the right exit status, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedage.client.site.home import init_site
from fedage.server.superlink.home import init_home

FIVE_MISTAKES = """
[campaign]
name = "Five Mistakes"
purpose = "A file with five mistakes, on purpose"
seed = 1

[estimator]
name = "chest-xa"

[training]
rounds = -3
bach_size = 8

[validation.fractions]
train = 0.5
validation = 0.2
test = 0.2
"""


def fedage(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "fedage.deploy", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_five_mistakes_are_five_messages_at_once(tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(FIVE_MISTAKES)
    done = fedage("campaign", "check", file)
    assert done.returncode == 2
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line.startswith("  - ")]
    assert len(lines) == 5, done.stderr
    for key, mend in (
        ("campaign.name", ""),
        ("estimator.name", "chest-ca"),
        ("training.rounds", "1"),
        ("bach_size", "batch_size"),
        ("validation.fractions", "1"),
    ):
        assert any(key in line and mend in line for line in lines), (key, done.stderr)


def test_a_right_file_is_told_its_digest_and_its_meaning(tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    right = FIVE_MISTAKES.replace("Five Mistakes", "right").replace("chest-xa", "chest-ca").replace("-3", "3")
    file.write_text(right.replace("bach_size", "batch_size").replace("test = 0.2", "test = 0.3"))
    done = fedage("campaign", "check", file)
    assert done.returncode == 0, done.stderr
    digest = subprocess.run(["sha256sum", file], capture_output=True, text=True, check=True).stdout.split()[0]
    assert digest in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo", "--nope"],
        ["campaign", "check"],
        ["campaign", "check", "no-such-file.toml"],
        ["site", "approve", "--home", "no-such-home", "x"],
        ["site", "campaigns", "--home", "no-such-home"],
        ["site", "index", "--home", "no-such-home"],
        ["coordinator", "start", "--home", "no-such-home"],
        ["nonsense"],
    ],
)
def test_a_mistake_is_said_without_a_traceback_and_makes_nothing(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fedage.deploy", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
    assert list(tmp_path.iterdir()) == []


def test_a_site_without_data_or_with_a_wrong_folder_is_told_the_mend(tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    init_site(
        tmp_path / "site",
        name="north",
        coordinator="localhost:8443",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
        data=tmp_path / "nowhere",
    )
    done = fedage("site", "index", "--home", tmp_path / "site")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


def test_a_campaign_without_a_running_coordinator_fails_its_command(tmp_path: Path) -> None:
    init_home(tmp_path / "coordinator", hosts=("localhost",), port=1)
    file = tmp_path / "campaign.toml"
    right = FIVE_MISTAKES.replace("Five Mistakes", "right").replace("chest-xa", "chest-ca").replace("-3", "3")
    file.write_text(right.replace("bach_size", "batch_size").replace("test = 0.2", "test = 0.3"))
    done = fedage("campaign", "run", file, "--home", tmp_path / "coordinator")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
