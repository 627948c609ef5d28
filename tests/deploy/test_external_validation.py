"""Train at some sites and validate at others in one campaign, and validate a bundle where nothing is trained.

What is reported of the sites that only validate is held against the model's formula on their own rows.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedage.common.bundle.container import BundleRefused, read_bundle
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.campaign_file.new import Answers, campaign_text
from fedage.common.errors import FedAgeError
from fedage.server.campaign.bundles import put_bundle
from fedage.server.cli.leave_out import left_out_table
from fedage.server.record.results import Results, StepResult
from tests.deploy.simulating import Simulated, as_csv, simulated
from tests.of_bundles import RIDGE, Exported, patients, ran

FEATURES = ["region_a", "region_b", "region_c", "region_d"]
FRACTIONS = RIDGE[RIDGE.index("[validation.fractions]") :]
FOLDS = RIDGE.replace(FRACTIONS, "[validation]\nfolds = 3\nfinal_model = true\n")
MIXED = FOLDS.replace("folds = 3\n", 'folds = 3\nsites = ["west"]\n')
N = 150


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return patients(n=N, seed=21)


@pytest.fixture(scope="module")
def mixed(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    return ran(tmp_path_factory.mktemp("mixed"), MIXED, table=table)


@pytest.fixture(scope="module")
def alone(table: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """The same campaign at the sites that train, without the third one."""
    return ran(tmp_path_factory.mktemp("alone"), FOLDS, table=table[table["hospital"] != "west"])


def years(run: Simulated, rows: pd.DataFrame) -> np.ndarray:
    model = load_file(run.folder / "model.safetensors")
    x = rows[FEATURES].to_numpy()
    return np.asarray(model["intercept"][0] + ((x - model["means"]) / model["sds"]) @ model["coefficients"])


def test_what_came_of_the_site_left_out_is_a_row_of_its_run(mixed: Simulated) -> None:
    table = left_out_table([mixed.results])
    row = [next(iter(column.cells)) for column in table.columns]
    found = figures(mixed.results.external["evaluation:test"])
    assert row == ["west", str(N), f"{found['mae_years']:.2f}", f"{found['mae_of_mean_years']:.2f}", "", ""]


def figures(step: StepResult) -> dict[str, float]:
    assert step.result is not None, step.not_computed
    return dict(step.result.model_dump())


def test_sites_that_only_validate_are_judged_by_the_final_model(mixed: Simulated, table: pd.DataFrame) -> None:
    west = table[table["hospital"] == "west"]
    predicted, age = years(mixed, west), west["age"].to_numpy()
    found = figures(mixed.results.external["evaluation:test"])
    assert mixed.results.external["evaluation:test"].sites == ("west",)
    assert found["n"] == N
    assert found["mae_years"] == pytest.approx(np.abs(predicted - age).mean(), abs=1e-9)
    slope, intercept = np.polyfit(predicted, age, 1)
    assert found["calibration_slope"] == pytest.approx(slope, abs=1e-9)
    assert found["calibration_intercept_years"] == pytest.approx(intercept, abs=1e-7)
    line = np.polyfit(age, predicted, 1)
    bias = figures(mixed.results.external["bias"])
    assert (bias["slope"], bias["intercept_years"]) == pytest.approx(tuple(line), abs=1e-8)
    assert figures(mixed.results.external["evaluation:test-corrected"])["n"] == N


@pytest.mark.slow
def test_nothing_of_those_who_train_changes_by_a_site_that_validates(mixed: Simulated, alone: Simulated) -> None:
    def told(results: Results) -> dict[str, object]:
        return {name: step.model_dump(exclude={"costs"}) for name, step in results.analyses.items()}

    assert told(mixed.results) == told(alone.results)
    assert mixed.results.preparation == alone.results.preparation
    for name in ("model.safetensors", "model-fold-1.safetensors", "model-fold-3.safetensors"):
        with_west, without = load_file(mixed.folder / name), load_file(alone.folder / name)
        assert all(np.array_equal(with_west[key], without[key]) for key in without), name
    assert {step.sites for step in mixed.results.analyses.values()} == {("north", "south")}


def test_the_record_and_the_report_tell_the_two_apart(mixed: Simulated) -> None:
    roles = {site.name: site.role for site in mixed.results.sites}
    assert roles == {"north": "training and evaluation", "south": "training and evaluation", "west": "validation only"}
    report = (mixed.folder / "report.html").read_text()
    assert "External validation (west): On 150 test patients the predicted age is off by" in report
    assert "External validation: Predicted age" in report
    assert "West was not trained on, and only validates by the campaign file" in report
    names = re.findall(r' id="([^"]+)"', report)
    assert sorted(names) == sorted(set(names))
    assert {"table-external-bias", "external-ages", "external-gap"} <= set(names)
    assert [made.fold for made in mixed.results.preparation] == [1, 2, 3, 4]
    assert mixed.results.preparation[3].n == 2 * N


@pytest.mark.slow
def test_with_fractions_everybody_at_such_a_site_is_for_the_line_or_reported(
    table: pd.DataFrame, tmp_path: Path
) -> None:
    text = RIDGE.replace(FRACTIONS, f'[validation]\nsites = ["west"]\n{FRACTIONS}')
    run = ran(tmp_path, text, table=table)
    (west,) = (site for site in run.results.sites if site.name == "west")
    parts = west.patients_by_part
    assert parts["train"] == 0
    assert (parts["validation"] or 0) + (parts["test"] or 0) == N
    found = figures(run.results.external["evaluation:test"])
    assert found["n"] == parts["test"]
    assert run.results.preparation[0].sites == ("north", "south")


def bundle_campaign(content: bytes, *, changes: dict[str, str] | None = None) -> str:
    read = read_bundle(content)
    table = {key: value for key, value in (read.description.table or {}).items() if value not in (None, [])}
    text = campaign_text(
        Answers(
            estimator="table-ridge",
            name="elsewhere",
            purpose="Validate a model at hospitals that had no part in it",
            age_column=None,
            bundle=read.digest,
            options=read.description.options,
            table=table,
        )
    )
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    return text


def validated(made: Exported, text: str, folder: Path, table: pd.DataFrame) -> Simulated:
    data = as_csv(table, folder / "table.csv")
    return simulated(folder / "run", text, data=data, site_column="hospital", bundle=made.file)


def test_a_bundle_is_validated_where_nothing_is_trained(exported_run: Exported, tmp_path: Path) -> None:
    table = patients(("east", "upper"), n=N, seed=31)
    run = validated(exported_run, bundle_campaign(exported_run.content), tmp_path, table)
    predicted, age = years(exported_run.run, table), table["age"].to_numpy()
    results = run.results
    assert results.run.status == "finished"
    assert (results.preparation, results.rounds, results.external) == ((), (), {})
    found = figures(results.analyses["evaluation:test"])
    assert found["n"] == 2 * N
    assert found["mae_years"] == pytest.approx(np.abs(predicted - age).mean(), abs=1e-9)
    assert found["calibration_slope"] == pytest.approx(np.polyfit(predicted, age, 1)[0], abs=1e-9)
    assert sorted(results.analyses["bias"].by_site) == ["east", "upper"]
    assert {site.role for site in results.sites} == {"validation only"}
    assert results.campaign.bundle == parse_campaign(bundle_campaign(exported_run.content)).bundle
    (note,) = (note for note in results.notes if note.startswith("Nothing was trained"))
    assert "campaign thickness" in note
    assert "sites north, south, west" in note
    assert not (run.folder / "model.safetensors").exists()
    report = (run.folder / "report.html").read_text()
    assert "was validated at east (150 patients) and upper (150 patients)" in report


def test_one_line_for_all_is_that_of_the_bundle(exported_run: Exported, tmp_path: Path) -> None:
    text = bundle_campaign(exported_run.content, changes={'scope = "site"': 'scope = "pooled"'})
    table = patients(("east", "upper"), n=N, seed=31)
    run = validated(exported_run, text, tmp_path, table)
    predicted, age = years(exported_run.run, table), table["age"].to_numpy()
    line = figures(exported_run.run.results.analyses["bias"])
    gap = predicted - (line["slope"] * age + line["intercept_years"])
    found = figures(run.results.analyses["evaluation:test-corrected"])
    assert found["mae_years"] == pytest.approx(np.abs(gap).mean(), abs=1e-9)
    assert found["mean_error_years"] == pytest.approx(gap.mean(), abs=1e-9)


def test_a_site_that_lacks_a_feature_is_named_before_anything_begins(exported_run: Exported, tmp_path: Path) -> None:
    table = patients(("east", "upper"), n=40, seed=31).drop(columns="region_c")
    with pytest.raises(FedAgeError, match=r"east: estimator\.options\.features names 'region_c'"):
        validated(exported_run, bundle_campaign(exported_run.content), tmp_path, table)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({'age_scale = "linear"': 'age_scale = "log"'}, "has other options than estimator.options"),
        ({'"region_c", ': ""}, "has other options than estimator.options"),
        ({"region_c": "region_e"}, "has other options than estimator.options|features"),
        ({'bundle = "': 'bundle = "0'}, "estimator.bundle"),
    ],
)
def test_another_bundle_or_other_options_are_refused(
    exported_run: Exported, tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    with pytest.raises((BundleRefused, FedAgeError), match=words):
        put_bundle(
            parse_campaign(bundle_campaign(exported_run.content, changes=changes)), exported_run.file, folder=tmp_path
        )


def test_a_bundle_is_given_exactly_where_one_is_named(exported_run: Exported, tmp_path: Path) -> None:
    text = bundle_campaign(exported_run.content)
    with pytest.raises(FedAgeError, match="give it with --bundle"):
        put_bundle(parse_campaign(text), None, folder=tmp_path)
    with pytest.raises(FedAgeError, match="leave it out"):
        put_bundle(parse_campaign(RIDGE), exported_run.file, folder=tmp_path)
    digest = parse_campaign(text).bundle or ""
    with pytest.raises(BundleRefused, match="has the SHA-256"):
        put_bundle(parse_campaign(text.replace(digest, "0" * 64)), exported_run.file, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (MIXED.replace('["west"]', '["west", "west"]'), "the item \"west\" is there 2 times"),
        (MIXED.replace("seed = 1", 'seed = 1\nsites = ["north", "west"]').replace('["west"]', '["east"]'),
         "east must be a site of campaign.sites"),
        (MIXED.replace("seed = 1", 'seed = 1\nsites = ["west"]'), "so nobody trains"),
        (RIDGE.replace(FRACTIONS, f"[validation]\nfinal_model = true\n{FRACTIONS}"), "needs validation.folds"),
        (MIXED.replace('"table-ridge"', f'"table-ridge"\nbundle = "{"0" * 64}"'), "all sites only validate a bundle"),
        (FOLDS.replace('"table-ridge"', f'"table-ridge"\nbundle = "{"0" * 64}"'), "the bundle is the final model"),
        (RIDGE.replace('"table-ridge"', f'"table-ridge"\nbundle = "{"0" * 64}"'), "nobody is trained on"),
        (RIDGE.replace('"table-ridge"', '"table-ridge"\nbundle = "model.fedage"'), "estimator.bundle"),
        (RIDGE.replace(FRACTIONS, "[training]\nrounds = 3\n").replace(
            '"table-ridge"', f'"table-mlp"\nbundle = "{"0" * 64}"'), "its model is ready"),
    ],
)  # fmt: skip
def test_what_a_file_says_against_itself_is_refused(text: str, words: str) -> None:
    with pytest.raises(CampaignErrors, match=words):
        parse_campaign(text)
