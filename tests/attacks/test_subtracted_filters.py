"""Two campaigns whose filters differ for a few patients, through real messages: asked, and nothing is left to subtract.

A filter by modality, by sex, and by who has an event by a time; each pair is offered in both orders.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, DESCRIBE, EVALUATE, TRAIN
from tests.client.hospital import CAMPAIGN, Hospital, Template, refused

MINIMUM = 3
POLICY = f"[approval]\nmode = 'automatic'\n[disclosure]\nminimum_count = {MINIMUM}\n"
FEW = (1, 2)
HEALTHY = '[cohort]\ntrain_on = "healthy"\n[cohort.healthy]\ncolumn = "{}"\nequals = 1\n'
GROUPS = '[groups]\ncolumn = "{}"\nequals = 1\nreference = 0\n'
PAIRS = {
    "sex": HEALTHY,
    "an event by a time": GROUPS,
    "an event by a time, as who is trained on": HEALTHY,
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """A hospital whose outcomes have a column, and others that differ from it for a few patients."""
    made = Template.make(tmp_path_factory.mktemp("template"))
    path = made.folder / "data" / "outcomes.csv"
    table = pd.read_csv(path, dtype=str)
    row = np.arange(len(table))
    for differ in (0, *FEW, 24):
        table[f"marked_{differ}"] = ((row % 2 == 0) ^ (row < differ)).astype(int).astype(str)
    table.to_csv(path, index=False)
    made.index(made.folder / "home")
    return made


def offer(hospital: Hospital, text: str) -> str:
    """The rule by which an offered campaign is refused; empty if it is approved."""
    hospital.campaign = parse_campaign(CAMPAIGN + text)
    reply = hospital.ask(DESCRIBE)
    return reply.rule if reply.status == "refused" else ""


def must_tell_nothing(hospital: Hospital) -> None:
    for kind in (TRAIN, EVALUATE, ANALYSE):
        reply, payload = hospital.send(hospital.request(kind, round=1 if kind == TRAIN else 0))
        assert (refused(reply, hospital), payload) == ("not-approved", {})


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("few", FEW)
@pytest.mark.parametrize("turned", [False, True])
def test_filters_that_differ_for_a_few_are_not_both_answered(
    template: Template, tmp_path: Path, kind: str, few: int, turned: bool
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy(POLICY)
    one, other = (PAIRS[kind].format(f"marked_{differ}") for differ in ((few, 0) if turned else (0, few)))
    assert offer(hospital, one) == ""
    assert offer(hospital, other) == "snapshot-too-close"
    must_tell_nothing(hospital)


@pytest.mark.parametrize("kind", ["sex", "an event by a time, as who is trained on"])
def test_filters_that_are_far_apart_pass(template: Template, tmp_path: Path, kind: str) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy(POLICY)
    assert [offer(hospital, PAIRS[kind].format(f"marked_{differ}")) for differ in (0, 24)] == ["", ""]


@pytest.mark.parametrize("few", FEW)
@pytest.mark.parametrize("turned", [False, True])
def test_modalities_that_differ_for_a_few_are_not_both_answered(
    template: Template, tmp_path: Path, few: int, turned: bool
) -> None:
    hospital = template.copy(tmp_path, approved=False)
    hospital.policy(POLICY)
    data = tmp_path / "data"
    shutil.copytree(template.folder / "data", data)
    files = sorted((data / "images").rglob("*.dcm"))
    usual = str(pydicom.dcmread(files[0], stop_before_pixels=True).Modality)
    rare = "CR" if usual == "DX" else "DX"
    changed: set[str] = set()
    for file in files:
        image = pydicom.dcmread(file)
        if str(image.PatientID) in changed or len(changed) < few:
            changed.add(str(image.PatientID))
            image.Modality = rare
            image.save_as(file)
    template.index(hospital.home, data)
    hospital.start()
    both, most = (f"[cohort]\nmodality = {names}\n" for names in ('["CR", "DX"]', f'["{usual}"]'))
    one, other = (most, both) if turned else (both, most)
    assert offer(hospital, one) == ""
    first = set(hospital.site.cohort(hospital.campaign).keys)
    if offer(hospital, other) == "snapshot-too-close":
        must_tell_nothing(hospital)
    else:  # the patients of the first campaign again, and nobody else
        assert set(hospital.site.cohort(hospital.campaign).keys) == first
