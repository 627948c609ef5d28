"""`fedage simulate --variants`: several estimators and options on the same data and folds, side by side."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.site_cohort import SiteCohort
from fedage.client.inbox.simulated import patients_digest
from fedage.common.errors import FedAgeError
from fedage.common.statistics.cohort import Cohort
from fedage.deploy.variants import BASE, PAGE, read_variants, require_same_patients
from tests.deploy.simulated import RIDGE, command, table
from tests.deploy.simulating import as_csv, simulated

VARIANTS = """
[strong.estimator.options]
penalty = 1000.0
[network.estimator]
name = "table-mlp"
options = { features = ["*"] }
[network.training]
rounds = 2
"""


def files(folder: Path, variants: str) -> tuple[Path, Path]:
    campaign, changes = folder / "campaign.toml", folder / "variants.toml"
    campaign.write_text(RIDGE)
    changes.write_text(variants)
    return campaign, changes


def test_a_variant_changes_what_it_says_and_nothing_else(tmp_path: Path) -> None:
    base, strong, network = read_variants(*files(tmp_path, VARIANTS))
    assert [one.name for one in (base, strong, network)] == [BASE, "strong", "network"]
    assert base.campaign.text == RIDGE
    assert strong.campaign.estimator.options == {**base.campaign.estimator.options, "penalty": 1000.0}
    assert network.campaign.estimator.name == "table-mlp"
    # Of another estimator none of the options before are left.
    assert set(network.campaign.estimator.options) == {"features"}
    for one in (strong, network):
        for key in ("campaign", "cohort", "validation", "table", "privacy", "simulation"):
            assert getattr(one.campaign, key) == getattr(base.campaign, key), key


@pytest.mark.parametrize(
    ("variants", "said"),
    [
        ("", "has no variant"),
        ("[a.validation]\nfolds = 3\n", "variant a changes validation; a variant may change"),
        ("[a.campaign]\nseed = 9\n", "variant a changes campaign"),
        ("[a.estimator.options]\npenalty = -1.0\n", r"(?s)variant a: .*penalty"),
        ("[a.estimator]\nname = 'table-rigde'\n", "did you mean"),
        ("[base.estimator.options]\npenalty = 1.0\n", "cannot be called 'base'"),
        ("['../up'.estimator.options]\npenalty = 1.0\n", "cannot be called '../up'"),
        ("a = 3\n", "variant a changes nothing"),
        ("[a\n", "not valid TOML"),
    ],
)
def test_a_file_that_makes_no_comparison_is_one_error(tmp_path: Path, variants: str, said: str) -> None:
    with pytest.raises(FedAgeError, match=said):
        read_variants(*files(tmp_path, variants))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    campaign, _ = files(tmp_path, "")
    with pytest.raises(FedAgeError, match=r"none\.toml cannot be read"):
        read_variants(campaign, tmp_path / "none.toml")


def test_runs_on_other_patients_or_other_folds_are_not_laid_side_by_side(tmp_path: Path) -> None:
    for name, told in {"a": {"x": "1", "y": "2"}, "b": {"x": "1", "y": "3"}, "c": {"x": "1", "y": "2"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "patients.json").write_text(json.dumps(told))
    require_same_patients([tmp_path / "a", tmp_path / "c"])
    with pytest.raises(FedAgeError, match="b and a were not judged on the same patients in the same folds at y"):
        require_same_patients([tmp_path / "a", tmp_path / "c", tmp_path / "b"])


@pytest.mark.parametrize("changed", ["age_years", "fold"])
def test_the_digest_of_patients_tells_other_ones_and_other_folds(changed: str) -> None:
    columns = {"age_years": np.array([30.0, 40.0, 50.0]), "fold": np.array([0.0, 1.0, 0.0])}
    usual = patients_digest(SiteCohort(cohort=Cohort(columns), samples=None))
    assert usual == patients_digest(SiteCohort(cohort=Cohort({**columns, "outcome": np.ones(3)}), samples=None))
    other = {**columns, changed: columns[changed][::-1] + np.array([0.0, 1.0, 0.0])}
    assert usual != patients_digest(SiteCohort(cohort=Cohort(other), samples=None))
    assert usual != patients_digest(SiteCohort(cohort=Cohort(columns), samples=None, keys=("a", "b", "c")))


@pytest.mark.slow
@pytest.mark.processes
def test_one_command_makes_the_runs_and_the_comparison(tmp_path: Path) -> None:
    _, changes = files(tmp_path, VARIANTS)
    words = command(tmp_path, RIDGE, table())
    done = subprocess.run(
        [*words, "--variants", str(changes)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == [BASE, PAGE, "network", "strong"]
    assert "estimator.options.penalty" in done.stdout
    assert "not the same folds" not in done.stdout.lower()
    digests = {name: json.loads((out / name / "patients.json").read_text()) for name in (BASE, "network", "strong")}
    assert digests[BASE] == digests["network"] == digests["strong"]
    # The campaign itself, but for clocks and names of runs, is what it is alone.
    alone = simulated(tmp_path / "alone", RIDGE, data=as_csv(table(), tmp_path / "table.csv"), site_column="site")
    beside = json.loads((out / BASE / "results.json").read_text())
    assert beside["analyses"] == json.loads((alone.folder / "results.json").read_text())["analyses"]
