"""README and guides say what is there: commands exist, files are where they are said to be, the example runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from fedage.client.site.home import SiteHome, init_site
from fedage.server.superlink.home import init_home
from tests.guides import (
    ELSEWHERE,
    EVERY,
    GUIDES,
    NETWORK,
    OF_FEDAGE,
    RESEARCH,
    ROOT,
    Command,
    check,
    fences,
    resolved,
    ways,
)

PLACES = re.compile(r"(?<![\w/.-])(?:client|server|common|deploy|tests)/[\w./*-]*")


@pytest.mark.parametrize("command", OF_FEDAGE, ids=lambda command: " ".join(command.words)[:90])
def test_a_command_and_its_options_exist(command: Command) -> None:
    check(command.of_fedage or ())


@pytest.mark.parametrize(
    "wrong",
    ["site aprove --home site DIGEST", "site approve --home site", "compare --jason run-1 run-2", "site audit"],
)
def test_a_command_that_does_not_exist_would_be_found(wrong: str) -> None:
    with pytest.raises(click.UsageError):
        check(tuple(shlex.split(wrong)))


def test_every_command_is_run_by_a_test() -> None:
    run = {*NETWORK, *RESEARCH, *ELSEWHERE}
    assert sorted({command.name for command in OF_FEDAGE} - run) == []
    for name, file in ELSEWHERE.items():
        assert f'"{name.split()[-1]}"' in (ROOT / file).read_text(encoding="utf-8"), f"{file} does not run {name}"
    for command in (command for command in EVERY if command.of_fedage is None):
        program, *arguments = (word for word in command.words if word != "PYTHONPATH=.")
        tests = [word for word in arguments if word.startswith("tests/")]
        assert Path(program).name in ("python", "python3.11", "pip"), command
        assert all((ROOT / file).is_file() for file in tests), command
        assert tests or "pytest" in arguments or "install" in arguments or "venv" in arguments, command


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_named_in_a_sentence_exist(guide: str) -> None:
    text = re.sub(r"^```.*?^```", "", GUIDES[guide].read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for quoted in re.findall(r"`fedage ([^`…]+)(?:…)?`", text):
        words = tuple(quoted.split())
        names, called, rest = resolved(words)
        options = {option for parameter in called.params for option in parameter.opts}
        assert names, f"{guide}: fedage {quoted}"
        assert {word for word in rest if word.startswith("-")} <= options, f"{guide}: fedage {quoted}"
        assert not isinstance(called, click.Group) or not rest, f"{guide}: fedage {quoted}"


@pytest.mark.parametrize("guide", GUIDES)
def test_what_a_guide_names_is_there(guide: str) -> None:
    text = GUIDES[guide].read_text(encoding="utf-8")
    named = {place.rstrip(".") for place in PLACES.findall(text)}
    assert sorted(place for place in named if not any(ROOT.glob(place.rstrip("/")))) == []
    links = [target for target in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in target]
    assert [target for target in links if not (GUIDES[guide].parent / target).is_file()] == []


def test_the_readme_is_a_page_and_leads_to_every_guide() -> None:
    text = GUIDES["README"].read_text(encoding="utf-8")
    assert 600 <= len(text.split()) <= 700
    assert set(re.findall(r"\(deploy/guides/([\w-]+)\.md\)", text)) == set(GUIDES) - {"README"}


def test_ways_through_the_files_are_counted_right() -> None:
    assert len(ways()) == 4
    for said, files in ways():
        assert len(files) == len(set(files)) == said
        assert [file for file in files if not (ROOT / file).is_file()] == []


@pytest.mark.parametrize("part", ["client", "server", "common"])
def test_the_rooms_are_drawn_as_the_contracts_have_them(part: str) -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == [f"fedage.{part}"]]
    drawn = re.search(rf"^{part}/  (.*(?:\n +→.*)*)", GUIDES["concepts"].read_text(), re.MULTILINE)
    assert drawn is not None
    rooms = [{room.strip() for room in layer.split(",")} for layer in drawn[1].split("→")]
    assert rooms == [{room.strip() for room in layer.split("|")} for layer in layers]


def test_the_settings_of_a_site_are_read(tmp_path: Path) -> None:
    coordinator = init_home(tmp_path / "coordinator", hosts=("localhost",))
    home = init_site(
        tmp_path / "site",
        name="north",
        coordinator="localhost:9",
        ca_certificate=coordinator.ca_certificate,
        coordinator_public_key=coordinator.signing_public_key,
    ).root
    (text,) = fences(GUIDES["hospital"].read_text(), "toml")
    (home / "site.toml").write_text(f"{(home / 'site.toml').read_text()}\n{text}")
    settings = SiteHome.load(home).config
    assert settings.table is not None
    assert (settings.table.missing, settings.table.leave_out) == ((-9999,), ("*_qc",))
    assert settings.outcome_columns is not None
    assert set(settings.outcome_columns.columns) == {"time_years", "event", "healthy"}


@pytest.mark.processes
def test_the_example_in_python_runs_and_imports_nothing_else(tmp_path: Path) -> None:
    (code,) = fences(GUIDES["researcher"].read_text(), "python")
    assert set(re.findall(r"fedage[.\w]*", "\n".join(re.findall(r"^(?:import|from) .*", code, re.MULTILINE)))) == {
        "fedage"
    }
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "campaign.seed = -1" in said[1]
    assert "finished [('north', 100), ('south', 100), ('west', 100)]" in said
    error = re.search(r"^mean absolute error (.*) years$", done.stdout, re.MULTILINE)
    gap = re.search(r"^gap_years: coefficient (.*), standard error (.*)$", done.stdout, re.MULTILINE)
    assert error is not None
    assert 2 < float(error[1]) < 4  # the true gap has an even spread of ±6 years: its mean absolute value is 3
    assert gap is not None
    assert float(gap[1]) == pytest.approx(0.1, abs=3 * float(gap[2]))  # the hazard that the example plants
