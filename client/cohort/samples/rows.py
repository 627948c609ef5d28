"""Rows of an array on disk, written one by one and read when they are asked for.

Plain reads: a memory map counts as a whole against the process's address space, and on a failing disk it kills the
process where a read raises.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


class RowFile:
    """The first rows of a `.npy` file. It stays readable when its name is removed, and threads may share it.

    Parameters
    ----------
    path
        The file.
    dtype
        Of its numbers.
    shape
        Of the whole array in it, rows first.
    count
        Rows to offer; None for all.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it does not hold an array of that type and shape in C order, or is too short for it.
    """

    def __init__(self, path: Path, *, dtype: np.dtype[Any], shape: tuple[int, ...], count: int | None = None) -> None:
        if count is not None and not 0 <= count <= shape[0]:
            raise ValueError(f"{count} rows of {shape[0]} are asked for")
        with path.open("rb") as stream:
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"{path.name} is a .npy file of version {version}, not of version (1, 0)")
            found_shape, fortran_order, found_dtype = np.lib.format.read_array_header_1_0(stream)
            if (found_shape, fortran_order, found_dtype) != (shape, False, dtype):
                raise ValueError(
                    f"{path.name} holds {found_dtype} {found_shape}{' in Fortran order' if fortran_order else ''}, "
                    f"not {dtype} {shape} in C order"
                )
            self._start_byte = stream.tell()
            self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
            whole_bytes = self._start_byte + shape[0] * self._row_bytes
            if (size_bytes := os.fstat(stream.fileno()).st_size) < whole_bytes:
                raise ValueError(f"{path.name} has {size_bytes} bytes of {whole_bytes}")
            self._descriptor = os.dup(stream.fileno())
        weakref.finalize(self, os.close, self._descriptor)
        self._dtype, self._row_shape = dtype, shape[1:]
        self._count = shape[0] if count is None else count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: NDArray[np.intp] | slice) -> NDArray[Any]:
        """Those rows, (n, …), in memory.

        Raises
        ------
        IndexError
            For a row that is not there.
        OSError
            If the disk fails, or the file has become shorter since it was opened.
        """
        wanted = self._numbers(rows)
        result = np.empty((len(wanted), *self._row_shape), dtype=self._dtype)
        if result.size == 0:
            return result
        buffer = result.reshape(-1).view(np.uint8).data
        if isinstance(wanted, range) and wanted.step == 1:
            self._fill(buffer, at_byte=self._place(wanted.start))
            return result
        for start, row in zip(range(0, len(buffer), self._row_bytes), wanted, strict=True):
            self._fill(buffer[start : start + self._row_bytes], at_byte=self._place(row))
        return result

    def will_read(self, rows: NDArray[np.intp] | slice) -> None:
        """Tell the kernel that those rows are read soon: it fetches all of them at once, beside whatever is computed.

        A system or a file system that takes no such advice reads them when they are asked for.
        """
        if not hasattr(os, "posix_fadvise") or not self._row_bytes:
            return
        wanted = self._numbers(rows)
        if isinstance(wanted, range) and wanted.step == 1:
            places = [(self._place(wanted.start), len(wanted) * self._row_bytes)] if wanted else []
        else:
            places = [(self._place(row), self._row_bytes) for row in wanted]
        for at_byte, count_bytes in places:
            os.posix_fadvise(self._descriptor, at_byte, count_bytes, os.POSIX_FADV_WILLNEED)

    def _numbers(self, rows: NDArray[np.intp] | slice) -> Sequence[int]:
        """Row numbers from 0, of some that may count from the end."""
        if isinstance(rows, slice):
            return range(self._count)[rows]
        if rows.dtype == np.bool_:
            rows = np.arange(self._count)[rows]
        wanted: list[int] = rows.tolist()
        if not wanted:
            return wanted
        if min(wanted) < -self._count or max(wanted) >= self._count:
            raise IndexError(f"rows {min(wanted)} to {max(wanted)} are asked for, of {self._count}")
        return wanted if min(wanted) >= 0 else [row % self._count for row in wanted]

    def _place(self, row: int) -> int:
        """Where a row begins in the file."""
        return self._start_byte + row * self._row_bytes

    def _fill(self, buffer: memoryview, *, at_byte: int) -> None:
        # One read may give less than was asked for: Linux reads at most 2 GiB.
        while (size_bytes := os.preadv(self._descriptor, [buffer], at_byte)) != len(buffer):
            if size_bytes == 0:
                row = (at_byte - self._start_byte) // self._row_bytes
                raise OSError(f"the samples end in row {row}; their file was cut since it was opened")
            buffer, at_byte = buffer[size_bytes:], at_byte + size_bytes


class RowWriter:
    """Writes a `.npy` file row by row, for `RowFile` to read.

    Plain writes: on a full disk they raise, where a memory map would kill the process.

    Parameters
    ----------
    stream
        An empty file.
    dtype
        Of its numbers.
    shape
        Of the whole array, rows first.
    """

    def __init__(self, stream: IO[bytes], *, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        self._stream, self._dtype, self._row_shape = stream, dtype, shape[1:]
        self._whole_bytes = stream.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize

    def write(self, row: NDArray[Any] | None) -> None:
        """The next row; zeros for none."""
        values = np.zeros(self._row_shape, self._dtype) if row is None else np.ascontiguousarray(row, dtype=self._dtype)
        self._stream.write(values.data)

    def end(self) -> None:
        """Rows that were not written stay a hole at the end, which takes no room. The file is then on the disk."""
        self._stream.truncate(self._whole_bytes)
        self._stream.flush()
        os.fsync(self._stream.fileno())
