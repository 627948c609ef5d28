"""Campaign files, policies and settings that are too large, or full of mistakes, cost little and print little."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from fedage.client.consent.approvals import ApprovalError, Approvals
from fedage.client.consent.policy import PolicyErrors, PolicyFile
from fedage.client.consent.policy.parse import load_policy, parse_policy
from fedage.client.consent.policy.types import Requests
from fedage.client.site.home import SiteHome
from fedage.client.supervisor.state import read_state
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import MAX_RECORD_BYTES, FileTooLarge, read_at_most, read_json
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.settings import SettingsErrors, check_settings, toml_tables
from fedage.server.compare.runs import RunUnusable, load_runs
from fedage.server.record.results import ResultsUnreadable, read_results
from fedage.server.superlink.control import run_status
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.hospital import CAMPAIGN

HUGE = 400 * 2**20
MANY = 14_000


def huge(path: Path) -> Path:
    """A file of many zero bytes that takes no room on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        stream.truncate(HUGE)
    return path


def peak_bytes(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak


READERS: dict[str, tuple[Callable[[Path], object], type[Exception]]] = {
    "campaign": (load_campaign, CampaignErrors),
    "policy": (load_policy, PolicyErrors),
    "record": (read_results, ResultsUnreadable),
    "text": (lambda path: read_at_most(path, most_bytes=1000), FileTooLarge),
    "json": (lambda path: read_json(path, most_bytes=1000), FileTooLarge),
}


@pytest.mark.parametrize("name", READERS)
def test_no_more_is_read_than_is_allowed(tmp_path: Path, name: str) -> None:
    read, error = READERS[name]
    path = huge(tmp_path / "file.toml")

    def refused() -> None:
        with pytest.raises(error, match="more than the"):
            read(path)

    assert peak_bytes(refused) < (200 * 2**20 if name == "record" else 10_000_000)


def test_what_is_on_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100)
    assert len(read_at_most(tmp_path / "a", most_bytes=100)) == 100
    with pytest.raises(FileTooLarge):
        read_at_most(tmp_path / "a", most_bytes=99)
    text = CAMPAIGN + "#" + "x" * (MAX_TOML_BYTES - len(CAMPAIGN.encode()) - 1)
    assert parse_campaign(text).digest
    for longer in (text + "x", CAMPAIGN + "#" + "ä" * (MAX_TOML_BYTES // 2)):
        with pytest.raises(CampaignErrors, match=f"bytes: allowed are {MAX_TOML_BYTES}"):
            parse_campaign(longer)


def test_a_policy_that_became_too_large_stops_every_answer(tmp_path: Path) -> None:
    huge(tmp_path / "policy.toml")
    policy = PolicyFile(tmp_path)
    with pytest.raises(PolicyErrors, match="more than the"):
        policy.current()
    assert policy.digest() is None


@pytest.mark.parametrize("state", ["approved", "declined", "offered"])
def test_a_campaign_of_the_home_that_became_too_large_is_none(tmp_path: Path, state: str) -> None:
    digest = f"{7:064x}"
    huge(tmp_path / state / f"{digest}.toml")
    approvals = Approvals(tmp_path)

    def asked() -> None:
        assert approvals.campaign(digest) is None
        assert approvals.approved(digest) is None
        with pytest.raises(ApprovalError, match="more than the"):
            approvals.text(digest)

    assert peak_bytes(asked) < 10_000_000


def test_a_site_and_a_coordinator_refuse_settings_that_are_too_large(tmp_path: Path) -> None:
    huge(tmp_path / "site" / "site.toml")
    with pytest.raises(FedAgeError, match="more than the"):
        SiteHome.load(tmp_path / "site")
    home = init_home(tmp_path / "coordinator")
    home.flower_home.mkdir(exist_ok=True)
    for content in (None, "a = 1", "[superlink]\nfedage = 3", ".".join(["a"] * 990) + " = 1", "[superlink\n"):
        file = home.flower_home / "config.toml"
        if content is None:
            huge(file)
        else:
            file.write_text(content)
        why = "more than the .* start the coordinator again" if content is None else "never been started"
        with pytest.raises(FedAgeError, match=why):
            run_status(home, 1)


@pytest.mark.parametrize("content", ["\0" * (MAX_TOML_BYTES + 1), ".".join(["a"] * 990) + " = 1", "x = " + "[" * 5000])
def test_a_campaign_beside_a_record_is_read_like_every_other(tmp_path: Path, content: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "campaign.toml").write_text(content)
        (tmp_path / name / "results.json").write_text("[" * 100_000)
    with pytest.raises((ResultsUnreadable, RunUnusable), match="is not JSON"):
        load_runs([tmp_path / "a", tmp_path / "b"])
    with pytest.raises(SettingsErrors):
        toml_tables(content, file=Path("campaign.toml"))


KEYS = {
    "unknown keys of a table": "[{table}]\n" + "\n".join(f"key{number} = 1" for number in range(MANY)),
    "unknown keys outside": "\n".join(f"key{number} = 1" for number in range(MANY)),
    "unknown tables": "\n".join(f"[key{number}]" for number in range(MANY)),
    "tables in a table": "\n".join(f"[{{table}}.key{number}]" for number in range(MANY)),
    "tables of analyses": "\n".join(f"[analyses.key{number}]" for number in range(MANY)),
    "one long key": "[{table}]\n" + "k" * 250_000 + " = 1",
    "one long value": '[{table}]\nkey = "' + "v" * 250_000 + '"',
    "wrong items": "[{table}]\ncoordinators = [" + "1," * MANY + "]\nname = [" + "1," * MANY + "]",
}


@pytest.mark.parametrize("name", KEYS)
def test_a_file_full_of_mistakes_prints_the_first_of_them(name: str) -> None:
    began = time.process_time()
    for parse, error, table in (
        (parse_campaign, CampaignErrors, "campaign"),
        (parse_policy, PolicyErrors, "requests"),
        (lambda text: check_settings(toml_tables(text, file=Path("s")), Requests, file=Path("s")), SettingsErrors, "a"),
    ):
        with pytest.raises(error) as raised:
            parse(KEYS[name].replace("{table}", table))
        lines = str(raised.value).splitlines()
        assert len(lines) <= 22
        assert max(map(len, lines)) < 2100
        if len(raised.value.problems) > 20:
            assert lines[-1] == f"  and {len(raised.value.problems) - 20} more"
    assert time.process_time() - began < 15


def test_the_commands_print_no_more_either(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(KEYS["unknown keys outside"])
    command = [sys.executable, "-m", "fedage.deploy", "campaign", "check", str(tmp_path / "c.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert len((done.stdout + done.stderr).splitlines()) < 30
    assert "  and 13" in done.stdout + done.stderr


def test_toml_is_parsed_in_one_place_only() -> None:
    root = Path(__file__).parents[2]
    direct = []
    for folder in ("common", "client", "server", "deploy"):
        for file in (root / folder).rglob("*.py"):
            # `tomli_w` writes and reads nothing.
            text = file.read_text(encoding="utf-8").replace("import tomli_w", "")
            if "tomllib" in text or "import tomli" in text:
                direct.append(file.relative_to(root).as_posix())
    assert direct == ["common/toml/text.py"]


def test_json_files_are_read_in_one_place_only() -> None:
    root = Path(__file__).parents[2]
    for folder in ("common", "client", "server", "deploy"):
        for file in (root / folder).rglob("*.py"):
            text = "".join(file.read_text(encoding="utf-8").split())
            for whole in (
                "json.load(",
                "json.loads(path.read",
                "json.loads(file.read",
                ').read_text(encoding="utf-8"))["',
            ):
                assert whole not in text, (
                    f"{file.relative_to(root)} reads JSON of any size; use deploy/machine/bounded.py"
                )


TOO_LARGE: dict[str, Callable[[Path], object]] = {
    "site settings": lambda path: SiteHome.load(path),
    "coordinator settings": lambda path: CoordinatorHome.load(path),
    "campaign": lambda path: load_campaign(path / "site.toml"),
    "record": lambda path: read_results(path / "results.json"),
    "policy": lambda path: load_policy(path / "site.toml"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_a_file_that_is_too_large_is_called_so_and_nothing_else(tmp_path: Path, name: str) -> None:
    """The error is an `OSError` among others: the mend of a missing or closed file would be wrong."""
    for file in ("site.toml", "coordinator.toml", "results.json"):
        huge(tmp_path / file)

    with pytest.raises(FedAgeError) as caught:
        TOO_LARGE[name](tmp_path)

    said = str(caught.value)
    assert "more than the" in said
    assert not re.search("cannot be read|permission|right to|is missing|make it with", said)


def test_a_supervisors_state_that_is_too_large_is_no_state(tmp_path: Path) -> None:
    huge(tmp_path / "state.json")
    assert read_state(tmp_path / "state.json") == {}


def test_a_small_file_takes_little_memory_whatever_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text("[1]")
    tracemalloc.start()
    try:
        assert read_json(file, most_bytes=MAX_RECORD_BYTES) == [1]
        assert tracemalloc.get_traced_memory()[1] < 3 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
def test_a_file_of_several_parts_is_read_whole_or_refused(tmp_path: Path, size: int) -> None:
    file, content = tmp_path / "record", os.urandom(size)
    file.write_bytes(content)
    assert read_at_most(file, most_bytes=size) == content
    if size:
        with pytest.raises(FileTooLarge):
            read_at_most(file, most_bytes=size - 1)
