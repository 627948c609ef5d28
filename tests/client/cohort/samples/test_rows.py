"""Rows of a file are those of the array in it, and a file that is not that array is refused."""

import gc
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from fedage.client.cohort.samples.rows import RowFile

DTYPE = np.dtype("<f4")
ARRAY = np.random.default_rng(1).normal(size=(11, 2, 3, 4)).astype(DTYPE)


def open_files() -> set[str]:
    return {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}


def stored(tmp_path: Path, array=ARRAY) -> Path:
    np.save(tmp_path / "rows.npy", array)
    return tmp_path / "rows.npy"


@pytest.mark.parametrize(
    "rows",
    [
        slice(None),
        slice(3, 7),
        slice(8, 99),
        slice(None, None, -3),
        np.array([5]),
        np.array([4, 5, 6, 2, 2, 3, 10, 0]),
        np.array([-1, 0, -11]),
        np.array([], dtype=np.intp),
        np.arange(11) % 2 == 0,
    ],
    ids=str,
)
@pytest.mark.parametrize("count", [None, 11, 10])
def test_rows_are_those_of_the_array(tmp_path, rows, count):
    file = RowFile(stored(tmp_path), dtype=DTYPE, shape=ARRAY.shape, count=count)
    array = ARRAY[:count]
    assert len(file) == len(array)
    try:
        expected = array[rows]
    except IndexError:
        with pytest.raises(IndexError):
            file[rows]
        return
    assert np.array_equal(file[rows], expected)
    assert file[rows].dtype == DTYPE


@pytest.mark.parametrize(
    ("rows", "places"),
    [
        (slice(2, 5), [(2, 3)]),
        (slice(8, 99), [(8, 3)]),
        (slice(5, 5), []),
        (slice(4, None, -2), [(4, 1), (2, 1), (0, 1)]),
        (np.array([7, 2, -1]), [(7, 1), (2, 1), (10, 1)]),
        (np.array([], dtype=np.intp), []),
    ],
    ids=str,
)
def test_rows_are_announced_to_the_kernel_where_they_lie(tmp_path, monkeypatch, rows, places):
    file, said = RowFile(stored(tmp_path), dtype=DTYPE, shape=ARRAY.shape), []
    start_byte = (tmp_path / "rows.npy").stat().st_size - ARRAY.nbytes
    monkeypatch.setattr(os, "posix_fadvise", lambda _, *place: said.append(place))
    file.will_read(rows)
    row_bytes = ARRAY[0].nbytes
    assert said == [(start_byte + row * row_bytes, n * row_bytes, os.POSIX_FADV_WILLNEED) for row, n in places]
    monkeypatch.delattr(os, "posix_fadvise")
    file.will_read(rows)
    assert np.array_equal(file[rows], ARRAY[rows])


@pytest.mark.parametrize("rows", [[11], [0, -12], [3, 99, 1]])
def test_rows_that_are_not_there_are_neither_announced_nor_read(tmp_path, rows):
    file = RowFile(stored(tmp_path), dtype=DTYPE, shape=ARRAY.shape)
    for use in (file.will_read, file.__getitem__):
        with pytest.raises(IndexError, match="of 11"):
            use(np.array(rows))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (5,)])
def test_arrays_without_numbers_or_without_further_axes(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=DTYPE).reshape(shape)
    assert np.array_equal(RowFile(stored(tmp_path, array), dtype=DTYPE, shape=shape)[:], array)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (ARRAY.astype("<f8"), "holds float64"),
        (ARRAY.astype(">f4"), "holds >f4"),
        (ARRAY.astype("<i4"), "holds int32"),
        (np.asfortranarray(ARRAY), "in Fortran order"),
        (ARRAY[:10], r"\(10, 2, 3, 4\)"),
        (ARRAY.reshape(11, 3, 2, 4), r"\(11, 3, 2, 4\)"),
    ],
)
def test_another_array_is_refused(tmp_path, array, message):
    with pytest.raises(ValueError, match=message):
        RowFile(stored(tmp_path, array), dtype=DTYPE, shape=ARRAY.shape)


@pytest.mark.parametrize("lost_bytes", [1, 96, 11 * 96])
def test_a_short_file_is_refused_and_one_cut_later_is_an_error(tmp_path, lost_bytes):
    path = stored(tmp_path)
    opened = RowFile(path, dtype=DTYPE, shape=ARRAY.shape)
    os.truncate(path, path.stat().st_size - lost_bytes)
    with pytest.raises(ValueError, match="bytes of"):
        RowFile(path, dtype=DTYPE, shape=ARRAY.shape)
    with pytest.raises(OSError, match="cut since it was opened"):
        opened[:]


@pytest.mark.parametrize("content", [b"", b"not an array", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00" + bytes(99)])
def test_what_is_no_array_file_is_refused(tmp_path, content):
    (tmp_path / "rows.npy").write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011 - numpy words some of them
        RowFile(tmp_path / "rows.npy", dtype=DTYPE, shape=ARRAY.shape)


@pytest.mark.parametrize("count", [-1, 12])
def test_more_rows_than_there_are_is_an_error(tmp_path, count):
    with pytest.raises(ValueError, match=f"{count} rows of 11"):
        RowFile(stored(tmp_path), dtype=DTYPE, shape=ARRAY.shape, count=count)


def test_it_stays_readable_when_removed_and_is_closed_when_dropped(tmp_path):
    path = stored(tmp_path)
    file = RowFile(path, dtype=DTYPE, shape=ARRAY.shape)
    path.unlink()
    assert np.array_equal(file[:], ARRAY)
    assert f"{path} (deleted)" in open_files()
    del file
    gc.collect()
    assert f"{path} (deleted)" not in open_files()


def test_threads_share_it(tmp_path):
    file = RowFile(stored(tmp_path), dtype=DTYPE, shape=ARRAY.shape)
    wrong = []

    def read(seed):
        rng = np.random.default_rng(seed)
        for _ in range(200):
            rows = rng.integers(0, 11, 5)
            if not np.array_equal(file[rows], ARRAY[rows]):
                wrong.append(rows)

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert wrong == []
