"""`fedage campaign export` and `fedage predict` as they are typed, from a run's folder to the CSV."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import typer.main
from click.testing import CliRunner

from fedage.common.errors import FedAgeError
from fedage.deploy.cli import app
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.server.record.results import read_results
from fedage.server.superlink.home import init_home
from tests.deploy.simulating import Simulated, as_csv
from tests.of_bundles import Exported, patients

ROOT = typer.main.get_command(app)


@pytest.fixture(scope="module")
def run(exported_run: Exported) -> Simulated:
    return exported_run.run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return init_home(tmp_path_factory.mktemp("coordinator") / "home", hosts=("localhost",)).root


def said(*words: str | Path) -> str:
    done = CliRunner().invoke(ROOT, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_a_run_becomes_a_bundle_and_a_bundle_predicts(run: Simulated, home: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "model.fedage"
    told = said("campaign", "export", run.folder, "--home", home, "--out", bundle)
    assert "no medical device" in told
    assert re.search(r"SHA-256 [0-9a-f]{64}\n", told)
    assert bundle.stat().st_mode & 0o777 == 0o600
    new = as_csv(patients(("elsewhere",), n=30, seed=8), tmp_path / "new.csv")
    told = said("predict", bundle, "--data", new, "--key", home / "coordinator.pub", "--out", tmp_path / "ages.csv")
    for words in ("Trained on", "no medical device", "30 exams predicted", f"predictions: {tmp_path / 'ages.csv'}"):
        assert words in told
    assert len(pd.read_csv(tmp_path / "ages.csv")) == 30


def test_a_campaign_file_is_written_from_a_bundle(run: Simulated, home: Path, tmp_path: Path) -> None:
    bundle, file = tmp_path / "model.fedage", tmp_path / "elsewhere.toml"
    said("campaign", "export", run.folder, "--home", home, "--out", bundle)
    said("campaign", "new", "--bundle", bundle, "--out", file, "--yes")
    campaign = load_campaign(file)
    assert campaign.bundle == hashlib.sha256(bundle.read_bytes()).hexdigest()
    assert campaign.estimator is not None
    assert list(campaign.estimator.options["features"]) == [f"region_{letter}" for letter in "abcd"]
    assert campaign.table is not None
    assert (campaign.table.id, campaign.table.age, campaign.table.missing) == ("subject", "age", (-9999.0,))
    assert "nothing: it validates a model" in said("campaign", "check", file)
    for more, words in (
        (("--estimator", "table-ridge"), "leave --estimator"),
        (("--features", "x"), "the bundle has its own"),
    ):
        with pytest.raises(FedAgeError, match=words):
            said("campaign", "new", "--bundle", bundle, "--out", tmp_path / "x.toml", "--yes", *more)
    with pytest.raises(FedAgeError, match="give it with --bundle"):
        said("simulate", file, "--data", as_csv(patients(n=40), tmp_path / "t.csv"), "--site-column", "hospital")


@pytest.mark.slow
@pytest.mark.processes
def test_a_bundle_is_validated_by_the_command(run: Simulated, home: Path, tmp_path: Path) -> None:
    bundle, file, out = tmp_path / "model.fedage", tmp_path / "elsewhere.toml", tmp_path / "out"
    said("campaign", "export", run.folder, "--home", home, "--out", bundle)
    said("campaign", "new", "--bundle", bundle, "--out", file, "--yes")
    data = as_csv(patients(("east", "upper"), n=100, seed=5), tmp_path / "other.csv")
    words = ["simulate", file, "--bundle", bundle, "--data", data, "--site-column", "hospital", "--out", out]
    done = subprocess.run(
        [sys.executable, "-m", "fedage.deploy", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_results(out / "results.json").analyses["evaluation:test"].sites == ("east", "upper")


def failed(folder: Path) -> None:
    record = folder / "results.json"
    values = json.loads(record.read_text())
    values["run"]["status"] = "failed"
    record.write_text(json.dumps(values))


def cut_off(folder: Path) -> None:
    model = folder / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-4])


def of_another_campaign(folder: Path) -> None:
    file = folder / "campaign.toml"
    file.write_text(file.read_text().replace("seed = 1", "seed = 2"))


def becomes(folder: Path, text: str) -> None:
    """The folder of a run of another campaign file, as far as digests tell."""
    file = folder / "campaign.toml"
    old, new = (hashlib.sha256(each.encode()).hexdigest().encode() for each in (file.read_text(), text))
    file.write_text(text)
    for name in ("results.json", "model.safetensors"):
        (folder / name).write_bytes((folder / name).read_bytes().replace(old, new))


def of_another_estimator(folder: Path) -> None:
    text = (folder / "campaign.toml").read_text().replace('"table-ridge"', '"table-mlp"')
    becomes(folder, f"{text}[training]\nrounds = 1\n")


def of_folds(folder: Path) -> None:
    text = (folder / "campaign.toml").read_text()
    becomes(folder, f"{text[: text.index('[validation.fractions]')]}[validation]\nfolds = 2\n")
    (folder / "model.safetensors").rename(folder / "model-fold-1.safetensors")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (of_folds, "has 2 folds and made a model for each, none on everybody"),
        (failed, "the run failed; export one that finished"),
        (cut_off, "is cut off, or no model that a run wrote"),
        (of_another_campaign, "is of another campaign file than"),
        (of_another_estimator, "holds no model of table-mlp with these options"),
        (lambda folder: (folder / "model.safetensors").unlink(), "is missing"),
        (lambda folder: (folder / "results.json").unlink(), "cannot be read"),
    ],
)
def test_a_run_without_a_model_of_its_own_is_refused_in_one_line(
    run: Simulated, home: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    spoil(tmp_path / "run")
    with pytest.raises(FedAgeError, match=words) as refused:
        said("campaign", "export", tmp_path / "run", "--home", home, "--out", tmp_path / "model.fedage")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "model.fedage").exists()
