"""Records of schema version 1, which had parts in place of steps, are read as what they said."""

import json
from pathlib import Path
from typing import Any

import pytest

from fedage.common.analyses.bias.bias_line import correction_of
from fedage.common.analyses.evaluation import results as evaluation_results
from fedage.common.analyses.groups import result
from fedage.common.analyses.survival import results as survival_results
from fedage.common.record.results import SCHEMA_VERSION
from fedage.deploy.demo.planted_truth import PlantedTruth
from fedage.server.compare.comparison import compare
from fedage.server.compare.runs import load_runs
from fedage.server.record.results import Results, read_results, write_results
from fedage.server.report import render_report


def written(folder: Path, values: dict[str, Any]) -> Path:
    """A file as version 1 wrote it, its numbers plain."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = json.loads(json.dumps({**values, "schema_version": 1}, default=lambda value: value.tolist()))
    (folder / "results.json").write_text(json.dumps(plain))
    return folder / "results.json"


def of_a_campaign_that_only_analyses(values: dict[str, Any]) -> dict[str, Any]:
    values["campaign"] |= {"estimator": ""}
    why = "the campaign has no estimator, so it predicts no age"
    nothing = {"overall": None, "by_site": {}, "not_computed": why}
    values["evaluation"] = {"test": {"raw": nothing, "corrected": nothing}}
    values["figures"] = {"not_computed": {"predicted_by_age": why}}
    return {**values, "bias": {"not_computed": why}, "groups": None, "planted": None}


def cut_off(values: dict[str, Any]) -> dict[str, Any]:
    ended = {"not_computed": "the run ended before"}
    values["survival"]["cox"] = [{"model": "gap", "stratified_by_site": False, **ended}]
    values["survival"]["kaplan_meier"] = {
        "column": "gap_years",
        **ended,
        "held_back": [{"sites": ["west"], "from_years": 1}],
    }
    values["groups"] |= {"corrected": ended, "raw": None}
    return {**values, "evaluation": {"test": {"raw": ended, "corrected": ended}}, "figures": {}, "bias": ended}


def with_contributors(values: dict[str, Any]) -> dict[str, Any]:
    told = {"evaluation:test": ["north", "south"], "groups:gap": ["north", "south"], "cox:gap": ["north"]}
    return {**values, "contributors": told}


KINDS = (dict, of_a_campaign_that_only_analyses, cut_off, with_contributors)


@pytest.mark.parametrize("change", KINDS)
def test_what_is_read_and_written_again_is_the_same_record(change, values: dict[str, Any], tmp_path: Path) -> None:
    old = read_results(written(tmp_path, change(values)))
    assert old.schema_version == SCHEMA_VERSION
    write_results(tmp_path / "new" / "results.json", old)
    assert read_results(tmp_path / "new" / "results.json") == old
    assert "evaluation" not in json.loads((tmp_path / "new" / "results.json").read_text())


def test_every_part_is_found_again(values: dict[str, Any], tmp_path: Path) -> None:
    found = read_results(written(tmp_path, values))
    north = values["evaluation"]["test"]["raw"]["by_site"]["north"]
    assert evaluation_results.evaluation(found).test.raw.by_site["north"].mae_years == pytest.approx(
        north["mae_years"], abs=0
    )
    assert correction_of(found).lines["south"].slope == values["bias"]["lines"]["south"]["slope"]
    assert survival_results.survival(found) is not None
    assert [model.model for model in survival_results.survival(found).cox] == [
        model["model"] for model in values["survival"]["cox"]
    ]
    assert survival_results.survival(found).cox[4].not_computed == "every site withheld its contribution"
    assert survival_results.survival(found).kaplan_meier is not None
    assert survival_results.survival(found).kaplan_meier.log_rank is not None
    assert result.groups(found) is not None
    assert result.groups(found).corrected.by_site["west"].not_computed == "it has patients of one group only"
    assert result.groups(found).raw is not None
    assert len(found.of_type(PlantedTruth)["planted-truth"].checks) == 4
    assert found.reference("hazard_ratio").values["gap_years"] == 1.138
    assert found.notes == tuple(values["notes"])


def test_of_no_estimator_no_age_is_told(values: dict[str, Any], tmp_path: Path) -> None:
    found = read_results(written(tmp_path, of_a_campaign_that_only_analyses(values)))
    assert not found.steps_of("evaluation")
    assert (
        evaluation_results.evaluation(found).test.raw.not_computed
        == "the campaign has no estimator, so it predicts no age itself and judges none that the sites' tables bring"
    )
    assert result.groups(found) is None
    assert found.of_type(PlantedTruth) == {}
    assert found.reference("hazard_ratio") is None


def test_reasons_and_costs_of_a_run_that_was_cut_off_are_kept(values: dict[str, Any], tmp_path: Path) -> None:
    found = read_results(written(tmp_path, cut_off(values)))
    assert survival_results.survival(found) is not None
    assert (
        survival_results.survival(found).cox[0].stratified_by_site,
        survival_results.survival(found).cox[0].not_computed,
    ) == (
        False,
        "the run ended before",
    )
    assert survival_results.survival(found).kaplan_meier is not None
    assert survival_results.survival(found).kaplan_meier.held_back[0].sites == ("west",)
    assert result.groups(found) is not None
    assert result.groups(found).corrected.not_computed == "the run ended before"
    assert "The run ended before" in render_report(found)


def test_sites_of_steps_are_those_told(values: dict[str, Any], tmp_path: Path) -> None:
    found = read_results(written(tmp_path, with_contributors(values)))
    assert found.contributors["evaluation:test"] == ("north", "south")
    # A Cox model names its sites itself.
    assert found.contributors["cox:gap"] == ("north", "south", "west")


def test_old_and_new_records_are_compared(values: dict[str, Any], tmp_path: Path) -> None:
    old = written(tmp_path / "old", values)
    write_results(tmp_path / "new" / "results.json", Results.model_validate(values))
    a, b = compare(load_runs([old.parent, tmp_path / "new"])).runs
    assert a.model_dump(exclude={"label"}) == b.model_dump(exclude={"label"})
