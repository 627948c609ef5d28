"""Commands that only read answer quickly: in a fresh process they load no torch, no pandas and no reader of images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fedage.common import estimators
from tests.client.hospital import CAMPAIGN, Template

SHIPPED = sorted((Path(__file__).parent.parent / "deploy" / "campaigns").glob("*.toml"))
HEAVY = (
    "torch", "monai", "pandas", "pyarrow", "pydicom", "nibabel", "scipy", "flwr", "grpc", "lifelines", "matplotlib",
    "ray", "cryptography.x509", "jinja2", "sqlalchemy",
)  # fmt: skip
RUN = """
import json, sys
from fedage.deploy.cli import main
sys.argv = ["fedage", *{words!r}]
try:
    main()
except SystemExit as ended:
    status = ended.code
heavy = [name for name in {heavy!r} if name in sys.modules]
print(json.dumps([status, heavy]))
"""


def loaded(*words: str | Path, heavy: tuple[str, ...] = HEAVY) -> tuple[list[str], str]:
    """The heavy modules of a fresh process after a command that must succeed, and what it printed."""
    code = RUN.format(words=[str(word) for word in words], heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, _, last = done.stdout.rstrip().rpartition("\n")
    status, found = json.loads(last)
    assert status == 0, (said, done.stderr)
    return found, said


@pytest.fixture(scope="module")
def home(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's home whose samples are made and to which a campaign was offered."""
    hospital = template.copy(tmp_path_factory.mktemp("copy"), approved=False)
    assert hospital.ask().rule == "not-approved"
    assert hospital.site.rules.approve(hospital.campaign).snapshot.patients
    hospital.site.rules.revoke(hospital.campaign.digest)
    return hospital.home


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_checking_a_shipped_campaign_is_light(file: Path) -> None:
    found, said = loaded("campaign", "check", file)
    assert "digest" in said
    assert found == []


def test_checking_a_campaign_on_images_is_light(tmp_path: Path) -> None:
    file = tmp_path / "campaign.toml"
    file.write_text(CAMPAIGN)
    found, said = loaded("campaign", "check", file)
    assert "chest-ca" in said
    assert found == []


@pytest.mark.parametrize("name", estimators.names())
def test_a_new_campaign_is_written_lightly(name: str, tmp_path: Path) -> None:
    out = tmp_path / "campaign.toml"
    found, _ = loaded("campaign", "new", "--estimator", name, "--out", out)
    assert name in out.read_text()
    assert found == []


def test_the_control_sees_torch_where_it_is_loaded() -> None:
    code = "import sys, fedage.client.compute.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 1


def test_a_hospital_reads_and_approves_an_offer_lightly(home: Path) -> None:
    found, said = loaded("site", "campaigns", "--home", home)
    assert "front-door" in said
    assert found == []
    file = home.parent / "campaign.toml"
    file.write_text(CAMPAIGN)
    found, said = loaded("site", "approve", file, "--home", home)
    assert "its cohort is frozen" in said
    assert found == []
    found, said = loaded("site", "campaigns", "--home", home)
    assert "frozen when you approved it" in said
    assert found == []


@pytest.mark.parametrize(
    "whose",
    [
        "[Campaign]",
        "[each.result for each in registry.own().values()]",
        "[Results, StepResult, Preparation, PooledCheck]",
    ],
)
def test_what_checks_files_and_records_is_built_when_one_is_read(whose: str) -> None:
    code = (
        "import sys; from fedage.common.analyses import registry; from fedage.common.campaign.types import Campaign;"
        "from fedage.server.record.results import PooledCheck, Preparation, Results, StepResult;"
        f"sys.exit(any(model.__pydantic_complete__ for model in {whose}))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", estimators.names())
def test_an_estimators_file_loads_no_torch(name: str) -> None:
    code = (
        f"import sys; from fedage.common import estimators as e; c = e.estimator_class({name!r});"
        "c.Options.model_json_schema(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
