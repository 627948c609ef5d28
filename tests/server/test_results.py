"""The record: versioned, documented, written whole, and what is read is what was written."""

import json
from pathlib import Path

import numpy as np
import pydantic
import pytest

import fedage.server
from fedage.common.analyses.evaluation.results import Metrics
from fedage.server.record.results import (
    SCHEMA_VERSION,
    CampaignInfo,
    Results,
    ResultsUnreadable,
    Round,
    RunInfo,
    SiteRecord,
    read_results,
    schema_text,
    write_results,
)


def small(**changes: object) -> Results:
    values: dict[str, object] = {
        "fedage_version": "0.1.0",
        "flwr_version": "1.41.0",
        "campaign": CampaignInfo(
            name="c", purpose="a purpose", digest="0" * 64, seed=1, estimator="chest-ca", minimum_count=10
        ),
        "run": RunInfo(
            id="run", started_utc="2026-01-01T00:00:00+00:00", status="finished", environment="simulation", guard=True
        ),
        "phantoms": False,
    }
    return Results.model_validate({**values, **changes})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    results = small(
        rounds=[Round(number=1, train_loss=0.1 + 0.2, validation_mae_years_by_site={"a": 1 / 3})],
        sites=[SiteRecord(name="a", status="took part", patients=100, excluded={"too-young": None, "no-age": 12})],
    )
    path = tmp_path / "new" / "results.json"
    write_results(path, results)
    assert read_results(path) == results
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]


def test_the_file_is_json_that_any_reader_takes(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    metrics = Metrics.model_validate(
        {"n": np.int64(3), "mae_years": np.float64("nan"), "pearson_r": float("inf"), "extra": np.array([1.5, np.nan])}
    )
    write_results(path, small(evaluation={"test": {"raw": {"overall": metrics}}}))
    text = path.read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    overall = json.loads(text)["analyses"]["evaluation:test"]["result"]
    assert overall["n"] == 3
    assert overall["mae_years"] is None
    assert overall["pearson_r"] is None
    assert overall["extra"] == [1.5, None]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    write_results(path, small())
    before = path.read_bytes()

    def full(_handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_results(path, small(phantoms=True))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_the_committed_schema_is_current() -> None:
    assert fedage.server.__file__ is not None
    committed = Path(fedage.server.__file__).with_name("results.schema.json").read_text(encoding="utf-8")
    assert committed == schema_text(), "write fedage.server.record.results.schema_text() to server/results.schema.json"


def test_every_key_is_documented() -> None:
    schema = json.loads(schema_text())
    tables = {"Results": schema, **schema["$defs"]}
    silent = [
        f"{table}.{key}"
        for table, content in tables.items()
        for key, value in content.get("properties", {}).items()
        if "description" not in value and "$ref" not in value
    ]
    assert silent == []
    assert schema["properties"]["schema_version"]["const"] == SCHEMA_VERSION


def test_frozen_and_strict_about_keys() -> None:
    results = small()
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        results.phantoms = True  # type: ignore[misc]
    with pytest.raises(pydantic.ValidationError, match="extra"):
        small(surprise=1)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("no json", "is not JSON"),
        ("[1]", "has no schema_version"),
        ("{}", "has no schema_version"),
        ('{"schema_version": 3}', "reads up to 2; install a newer FedAge"),
        ('{"schema_version": 2, "phantoms": false}', "does not fit schema 2: 4 mistakes, the first at fedage_version"),
        ('{"schema_version": 1, "phantoms": false}', "does not fit schema 1: 4 mistakes, the first at fedage_version"),
        ('{"schema_version": 1, "survival": 3}', "does not fit schema 1: 1 mistakes, the first at the file"),
        ('{"schema_version": 1, "survival": {"cox": [{}]}}', "does not fit schema 1"),
        ('{"schema_version": 1, "groups": {"corrected": [1]}}', "does not fit schema 1"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ResultsUnreadable, match=says):
        read_results(path)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ResultsUnreadable, match="cannot be read"):
        read_results(tmp_path / "results.json")
