"""`fedage predict`: a run's bundle on new exams; what is not of its kind is refused in one line, or set aside."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from fedage.client.prediction.run import Predicted, predict
from fedage.client.prediction.tables import Named
from fedage.common.bundle.container import BundleRefused, read_bundle
from fedage.common.errors import FedAgeError
from tests.deploy.simulating import as_csv
from tests.of_bundles import Exported, patients


@pytest.fixture(scope="module")
def made(exported_run: Exported) -> Exported:
    return exported_run


@pytest.fixture(scope="module")
def new() -> pd.DataFrame:
    return patients(("elsewhere",), n=50, seed=9).drop(columns=["hospital", "region_x"])


def predicted(made: Exported, frame: pd.DataFrame, folder: Path, **options: object) -> tuple[pd.DataFrame, Predicted]:
    data = as_csv(frame, folder / "new.csv")
    done = predict(made.file, data=data, key=made.public, out=folder / "out.csv", **options)  # type: ignore[arg-type]
    return pd.read_csv(done.file), done


def test_ages_and_gaps_are_what_the_models_formula_gives(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    table, done = predicted(made, new, tmp_path)
    model = load_file(made.run.folder / "model.safetensors")
    x = new[["region_a", "region_b", "region_c", "region_d"]].to_numpy()
    years = model["intercept"][0] + ((x - model["means"]) / model["sds"]) @ model["coefficients"]
    np.testing.assert_allclose(table["predicted_years"], years, atol=1e-3)
    line = made.run.results.analyses["bias"].result
    assert line is not None
    slope, intercept = line.model_dump()["slope"], line.model_dump()["intercept_years"]
    np.testing.assert_allclose(table["gap_years"], years - (slope * new["age"] + intercept), atol=1e-3)
    np.testing.assert_allclose(table["corrected_years"] - table["age_years"], table["gap_years"], atol=1e-3)
    assert table["exam"].tolist() == new["subject"].tolist()
    assert list(table.columns) == [
        "exam", "age_years", "predicted_years", "raw_gap_years", "corrected_years", "gap_years", "outside_ages_seen",
        "missing_features",
    ]  # fmt: skip
    assert (done.columns["predicted_years"] - new["age"]).abs().mean() < 8
    assert stat.S_IMODE(done.file.stat().st_mode) == 0o600


def test_the_limits_of_the_model_are_told(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    _, done = predicted(made, new, tmp_path)
    said = "\n".join(done.said)
    for words in ("3 sites: north, south, west", "no medical device", "from 20 to 80 years", "were off by"):
        assert words in said
    assert "the bias line over all sites" in said
    _, done = predicted(made, new, tmp_path, line="west")
    assert "the bias line of site west" in "\n".join(done.said)
    with pytest.raises(FedAgeError, match="no bias line of 'east'; it has north, south, west, all sites"):
        predicted(made, new, tmp_path, line="east")


def test_the_bundle_has_the_columns_that_a_pattern_found_and_the_card(made: Exported) -> None:
    described = read_bundle(made.content, trusted=[made.key.public_key()]).description
    assert described.row == tuple(f"feature:region_{letter}" for letter in "abcd")
    assert described.options["features"] == [f"region_{letter}" for letter in "abcd"]
    assert "exclude" not in described.options
    assert sorted(described.lines) == ["north", "south", "west"]
    assert sum(n or 0 for n in described.trained_on.sites.values()) == made.run.results.preparation[0].n
    for words in ("# Model card", "| west |", "no medical device", "linear in age in years", "What the bundle reveals"):
        assert words in described.card
    assert "trained without differential privacy" in described.card


def test_rows_that_cannot_be_predicted_are_set_aside_and_counted(
    made: Exported, new: pd.DataFrame, tmp_path: Path
) -> None:
    frame = new.copy()
    frame.loc[0, "subject"] = None
    frame.loc[1, "age"] = 200.0
    frame.loc[2, "age"] = None
    frame.loc[3, ["region_a", "region_b", "region_c", "region_d"]] = [np.nan, -9999, np.nan, np.nan]
    frame.loc[4, "region_a"] = -9999
    table, done = predicted(made, frame, tmp_path)
    assert len(table) == 47
    assert any("1 implausible-age, 1 no-feature, 1 row-without-id" in line for line in done.said)
    without_age, one_missing = table[table["exam"] == "elsewhere-002"], table[table["exam"] == "elsewhere-004"]
    assert without_age["predicted_years"].notna().all()
    assert without_age[["gap_years", "age_years", "outside_ages_seen"]].isna().all(axis=None)
    assert one_missing["missing_features"].tolist() == [1]
    assert one_missing["predicted_years"].notna().all()


def test_exams_outside_the_ages_of_the_training_are_marked(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    frame = new.copy()
    frame.loc[[0, 1], "age"] = [3.0, 99.0]
    table, done = predicted(made, frame, tmp_path)
    assert table["outside_ages_seen"].tolist() == [1, 1, *([0] * 48)]
    assert any(line.startswith("2 of them outside the ages") for line in done.said)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop(columns="region_b"), "lacks 1 of the 4 features of the bundle: 'region_b'"),
        (lambda f: f.rename(columns=str.upper), "lacks 4 of the 4 features"),
        (lambda f: f.assign(region_b="thin"), "column 'region_b' holds text"),
        (lambda f: f.assign(region_b=f["region_b"] * 1000), "more than 10 standard deviations .* 'region_b'"),
        (lambda f: f.assign(age=f["age"] * 12), "holds many ages above 130"),
        (lambda f: f.assign(age="old"), "column 'age' holds text, where ages in years belong"),
        (lambda f: f.assign(region_a=np.nan, region_b=np.nan, region_c=np.nan, region_d=np.nan), "no exam can be"),
    ],
)
def test_a_table_of_another_kind_is_refused_in_one_line(
    made: Exported, new: pd.DataFrame, tmp_path: Path, change: object, words: str
) -> None:
    with pytest.raises(FedAgeError, match=words) as refused:
        predicted(made, change(new), tmp_path)  # type: ignore[operator]
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out.csv").exists()


def test_images_and_missing_files_are_refused_in_one_line(made: Exported, tmp_path: Path) -> None:
    (tmp_path / "image.dcm").write_bytes(b"DICM")
    for data, words in ((tmp_path, "is a folder"), (tmp_path / "image.dcm", "is no table"), (tmp_path / "x", "not")):
        with pytest.raises(FedAgeError, match=words):
            predict(made.file, data=data, key=made.public, out=tmp_path / "out.csv")


def test_a_bundle_that_cannot_be_trusted_predicts_nothing(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    data, out = as_csv(new, tmp_path / "new.csv"), tmp_path / "out.csv"
    cut = tmp_path / "cut.fedage"
    cut.write_bytes(made.content[:-9])
    with pytest.raises(BundleRefused, match="cut off"):
        predict(cut, data=data, key=made.public, out=out)
    for file, words in ((made.run.folder / "model.safetensors", "without a signed"), (tmp_path, "cannot be read")):
        with pytest.raises(BundleRefused, match=words):
            predict(file, data=data, key=made.public, out=out)
    with pytest.raises(FedAgeError, match="whom to trust"):
        predict(made.file, data=data, out=out)
    with pytest.raises(FedAgeError, match="where to write"):
        predict(made.file, data=data, key=made.public)
    assert not out.exists()


def test_columns_may_be_called_otherwise(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    renamed = new.rename(columns={"subject": "MRN", "age": "Alter"})
    table, done = predicted(made, renamed, tmp_path)
    assert table["exam"].iloc[0] == "row 1"
    assert table["gap_years"].isna().all()
    assert any("name one with --age" in line for line in done.said)
    table, _ = predicted(made, renamed, tmp_path, named=Named(id="MRN", age="Alter"))
    expected, _ = predicted(made, new, tmp_path)
    pd.testing.assert_frame_equal(table, expected)
    with pytest.raises(FedAgeError, match="no column 'Age'"):
        predicted(made, new, tmp_path, named=Named(age="Age"))


@pytest.mark.parametrize(
    ("column", "value", "rows"),
    [
        ("region_a", -999.0, [0]),
        ("region_b", -9999.5, [3, 7]),
        ("region_c", 99.0, [1]),
        ("region_d", 1896.0, list(range(20))),  # micrometres at two fifths of the rows
    ],
)
def test_a_value_that_no_patient_can_have_is_set_aside_and_said(
    column: str, value: float, rows: list[int], made: Exported, new: pd.DataFrame, tmp_path: Path
) -> None:
    changed = new.copy()
    changed.loc[rows, column] = value
    table, done = predicted(made, changed, tmp_path)
    assert table["exam"].tolist() == new["subject"].drop(rows).tolist()
    assert table["predicted_years"].between(1, 129).all()
    said = " ".join(done.said)
    assert f"{len(rows)} far-value" in said
    assert repr(column) in said


def test_a_value_at_the_edge_of_what_was_seen_is_predicted(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    changed = new.copy()
    changed.loc[0, "region_a"] += 3.0  # eight SDs
    table, _ = predicted(made, changed, tmp_path)
    assert len(table) == len(new)


def test_predictions_that_are_cut_are_said(made: Exported, new: pd.DataFrame, tmp_path: Path) -> None:
    changed = new.copy()
    changed.loc[[0, 1], ["region_a", "region_b", "region_c", "region_d"]] += 6.0
    table, done = predicted(made, changed, tmp_path)
    assert (table["predicted_years"][:2] == 0).all()
    assert any("2 predictions are cut to 0 or 130 years" in sentence for sentence in done.said)


@pytest.mark.parametrize("cells", [["1,5", "2,25"], ["1_200", "1_300"], ["1.9*", "2.0*"], ["2·1", "1·9"]])
def test_numbers_written_otherwise_are_refused_not_missing(
    cells: list[str], made: Exported, new: pd.DataFrame, tmp_path: Path
) -> None:
    changed = new.astype({"region_a": object})
    changed.loc[[0, 1], "region_a"] = cells
    with pytest.raises(FedAgeError, match="region_a"):
        predicted(made, changed, tmp_path)
