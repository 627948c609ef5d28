"""Parquet files that are small and unpack to more than any machine has."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedage.client.cohort.table.read import read_frame
from fedage.common.errors import FedAgeError

ROWS = 400_000
LONG = "a" * 50_000


def bomb(kind: str) -> pa.Array:
    """A column of 20 GB that is a few kilobytes in a file."""
    if kind == "binary":
        values = pa.array([LONG.encode()])
    else:
        values = pa.array([LONG], pa.large_string() if kind == "large string" else pa.string())
    places = pa.array([0] * ROWS, pa.int32())
    if kind == "missing too":
        places = pa.array([0, None] * (ROWS // 2), pa.int32())
    return pa.DictionaryArray.from_arrays(places, values)


@pytest.mark.parametrize("stores_schema", [True, False], ids=["categories", "texts"])
@pytest.mark.parametrize("kind", ["string", "large string", "binary", "missing too"])
def test_a_text_that_stands_once_for_many_rows(tmp_path: Path, kind: str, stores_schema: bool) -> None:
    table = pa.table({"id": pa.array([str(row) for row in range(ROWS)]), "note": bomb(kind)})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd", store_schema=stores_schema)
    assert (tmp_path / "t.parquet").stat().st_size < 2**23
    with pytest.raises(FedAgeError, match=r"texts of more than 2147483648 bytes together: leave out long ones"):
        read_frame(tmp_path / "t.parquet", text=("id",))


@pytest.mark.parametrize("inside", [[1.0] * 3, {"a": 1.0}, [[1.0]]], ids=["list", "record", "lists"])
def test_a_column_of_many_values_a_row(tmp_path: Path, inside: object) -> None:
    pq.write_table(pa.table({"id": ["1", "2"], "age": [50.0, 60.0], "x": [inside] * 2}), tmp_path / "t.parquet")
    with pytest.raises(FedAgeError, match=r"column 3 holds lists or records"):
        read_frame(tmp_path / "t.parquet", text=("id",))


def test_ordinary_texts_are_read(tmp_path: Path) -> None:
    written = {"id": ["1", "2", "3"], "site": pa.array(["a", None, "b"]).dictionary_encode(), "age": [50.0, 60.0, 70.0]}
    pq.write_table(pa.table(written), tmp_path / "t.parquet")
    found = read_frame(tmp_path / "t.parquet", text=("id",))
    assert found["id"].tolist() == ["1", "2", "3"]
    assert found["age"].tolist() == [50.0, 60.0, 70.0]
