"""A canary: patients whose identifiers and names can be told anywhere, and a look into every file of a campaign."""

from __future__ import annotations

import csv
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from typer.testing import CliRunner

from fedage.client.agent.service import Agent
from fedage.client.cli.main import site
from fedage.client.inbox import handlers
from fedage.client.site.cancel import Cancellation
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import EVALUATE, TRAIN
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.heads import Heads
from fedage.server.superlink.grid import PollingGrid
from tests.client.hospital import CAMPAIGN, Hospital, Template
from tests.machinery import InProcessGrid

CANARY, NAME = "CANARY7391", "Vogelgesang"
SURVIVAL = (
    '[survival]\ntable_times_years = [1, 2, 4]\n[[survival.models]]\nname = "gap"\n'
    'covariates = ["gap_years", "age_years"]\n'
)


def marked(template: Template, folder: Path) -> tuple[Path, list[str]]:
    """The data with identifiers, names, accession numbers and dates of birth that can be found again."""
    data = folder / "data"
    shutil.copytree(template.folder / "data", data)
    known: dict[str, str] = {}
    needles = []
    for file in sorted(data.rglob("*.dcm")):
        image = pydicom.dcmread(file)
        new = known.setdefault(str(image.PatientID), f"{CANARY}-{len(known):03d}")
        image.PatientID, image.PatientName, image.AccessionNumber = new, f"{NAME}^{new[-3:]}", f"A{new}"
        image.save_as(file)
        needles += [str(image.SOPInstanceUID), str(image.StudyInstanceUID)]
    with (data / "outcomes.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        row["patient_id"] = known[row["patient_id"]]
    with (data / "outcomes.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return data, [CANARY, NAME, *needles]


def spilt(folder: Path, needles: list[str]) -> Iterator[str]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            for needle in needles:
                if needle.encode() in content or needle in str(file.relative_to(folder)):
                    yield f"{needle} in {file.relative_to(folder)}"


def typed(hospital: Hospital, *words: str) -> str:
    done = CliRunner().invoke(site, [*words, "--home", str(hospital.home)])
    return f"{done.output} {done.exception!s}"


def test_no_identifier_of_a_patient_is_anywhere_after_a_campaign(
    template: Template, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    data, needles = marked(template, tmp_path / "zone")
    members = []
    for name in ("a", "b"):
        made = template.copy(tmp_path / name, approved=False)
        (made.home / "cohort.db").unlink()
        shutil.rmtree(made.home / "cache")
        settings = made.home / "site.toml"
        moved = settings.read_text().replace(str(template.folder / "data"), str(data))
        settings.write_text(moved.replace('"harbour"', f'"{name}"'))
        said = typed(made, "index")
        made.start()
        made.campaign = parse_campaign(CAMPAIGN + SURVIVAL)
        made.site.rules.approve(made.campaign)
        members.append(made)
        assert not any(needle in said for needle in needles), said
    coordinator = tmp_path / "coordinator"
    grid = InProcessGrid([member.site for member in members])
    conduct(
        PollingGrid(grid, poll_s=0.01),
        members[0].campaign,
        Place(folder=coordinator / "run", run="run", environment="deployment", guard=True, sites_there=2),
        key=members[0].key,
        admitted=grid.names,
        heads=Heads(coordinator / "heads"),
    )
    assert (coordinator / "run" / "results.json").is_file()
    assert list(spilt(data, needles))  # what is looked for can be found
    one = members[0]
    for file in data.rglob("*.dcm"):  # images that vanish under a running agent fail without a word of whose they were
        file.unlink()
    shutil.rmtree(one.home / "cache")
    one.start()
    agent = Agent(handlers.app, site_home=one.home)
    replies = [
        agent.answer(one.message(one.request(kind, run="r2", round=1)), Cancellation()) for kind in (TRAIN, EVALUATE)
    ]
    errors = [reply.error.reason if reply.has_error() else str(dict(reply.content["reply"])) for reply in replies]
    printed = [
        typed(one, "campaigns"),
        typed(one, "audit", "show"),
        typed(one, "audit", "verify"),
        typed(one, "audit", "show", "--csv", str(tmp_path / "a" / "audit.csv")),
        typed(one, "approve", f"{CANARY}.toml"),
        typed(one, "policy", "show"),
    ]
    printed[4] = printed[4].replace(repr(f"{CANARY}.toml"), "")  # what was typed may be repeated to who typed it
    for text in (caplog.text, *errors, *printed):
        assert not [needle for needle in needles if needle in text], text[-2000:]
    assert list(spilt(coordinator, needles)) == []
    for member in members:  # the store too knows hashes; paths of images are in it, and are the hospital's own
        assert list(spilt(member.home, needles)) == []
    one.must_be_intact()
