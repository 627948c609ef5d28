"""Preprocessed samples on disk: made once for a cohort and an estimator, then read as a memory map.

A sample is a patient's: the first image of the baseline exam that the estimator accepts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedage.client._durable import sync
from fedage.client.agent.cancel import stop_if_cancelled, wait_for
from fedage.client.cohort.kinds import PIXELS_VERSION
from fedage.client.cohort.query import Selection
from fedage.common._version import __version__
from fedage.common.bounded import MAX_RECORD_BYTES, read_json
from fedage.common.estimators.base import Estimator
from fedage.common.image import FloatImage, SampleRefused

Progress = Callable[[int, int], None]
"""Told of patients done and patients in all."""

_DTYPE = np.dtype("<f4")
_ARRAY, _ABOUT, _LOCK, _BUILDING = "samples.npy", "rows.json", "build.lock", ".building"


@dataclass(frozen=True)
class Samples:
    """The patients whose image became a sample.

    Parameters
    ----------
    selection
        Those patients, in order.
    array
        Their samples (n, C, H, W), float32, memory-mapped, read-only.
    rejected
        Images refused, by code; a patient none of whose images became a sample is not in `selection`.
    """

    selection: Selection
    array: NDArray[np.float32]
    rejected: Mapping[str, int] = field(default_factory=dict)


class SampleCache:
    """Samples of a site under one folder.

    Parameters
    ----------
    folder
        Where they are kept; one sub-folder for each cohort, estimator with its options, and version.
    root
        The indexed folder that the selections' paths are relative to.
    """

    def __init__(self, folder: Path, *, root: Path) -> None:
        self._folder, self._root = Path(folder), Path(root)

    def build(
        self,
        selection: Selection,
        estimator: Estimator,
        *,
        workers: int | None = None,
        progress: Progress | None = None,
    ) -> Samples:
        """The samples of a selection, made if they are not there yet. No image is fatal.

        Raises
        ------
        OSError
            If the disk is full or fails; nothing half-made is left to be taken for whole.
        Cancelled
            If the message that they are made for is cancelled; nothing half-made is left.
        """
        name = _name(selection, estimator)
        shape = tuple(estimator.sample_shape())
        if (found := _read(self._folder / name, selection, shape)) is not None:
            return found
        with self._building() as partial:
            if (found := _read(self._folder / name, selection, shape)) is not None:
                return found  # another process made them while this one waited
            self._write(partial, selection, estimator, workers=workers, progress=progress)
            if _read(partial, selection, shape) is None:
                raise OSError("the samples were written and do not read back whole; the disk may be full or failing")
            shutil.rmtree(self._folder / name, ignore_errors=True)  # there, but not whole
            partial.rename(self._folder / name)
            sync(self._folder)
        made = _read(self._folder / name, selection, shape)
        if made is None:
            raise OSError("the samples vanished while they were made; let one agent at a time use this folder")
        return made

    @contextmanager
    def _building(self) -> Iterator[Path]:
        """An empty folder to build in, one builder at a time; what a crash has left there is removed first."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._folder / _BUILDING
        with (self._folder / _LOCK).open("ab") as stream:
            wait_for(lambda: _locked(stream))
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(mode=0o700)
            try:
                yield partial
            finally:
                shutil.rmtree(partial, ignore_errors=True)

    def _write(
        self,
        folder: Path,
        selection: Selection,
        estimator: Estimator,
        *,
        workers: int | None,
        progress: Progress | None,
    ) -> None:
        rejected: Counter[str] = Counter()
        rows: list[int] = []
        shape = (selection.n, *estimator.sample_shape())
        # Plain writes: on a full disk they raise, where a memory map would kill the process.
        with (folder / _ARRAY).open("wb") as stream:
            header = {"descr": np.lib.format.dtype_to_descr(_DTYPE), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(stream, header)
            whole_size = stream.tell() + int(np.prod(shape, dtype=np.int64)) * _DTYPE.itemsize
            for row, (sample, codes) in enumerate(self._samples(selection.images, estimator, workers=workers)):
                rejected.update(codes)
                if sample is not None:
                    stream.write(np.ascontiguousarray(sample, dtype=_DTYPE).data)
                    rows.append(row)
                if progress is not None:
                    progress(row + 1, selection.n)
            stream.truncate(whole_size)  # the rows of refused patients stay a hole at the end, which takes no room
            stream.flush()
            os.fsync(stream.fileno())
        with (folder / _ABOUT).open("w", encoding="utf-8") as stream_text:
            json.dump({"rows": rows, "rejected": dict(sorted(rejected.items()))}, stream_text)
            stream_text.flush()
            os.fsync(stream_text.fileno())
        sync(folder)

    def _samples(
        self, images: Iterable[tuple[str, ...]], estimator: Estimator, *, workers: int | None
    ) -> Iterator[tuple[FloatImage | None, list[str]]]:
        """Sample, or None, and codes of refused images of each patient in order; few are held at a time."""
        count = workers or os.cpu_count() or 1
        waiting: deque[Future[tuple[FloatImage | None, list[str]]]] = deque()
        with ThreadPoolExecutor(count, thread_name_prefix="samples") as pool:
            try:
                for paths in images:
                    stop_if_cancelled()
                    waiting.append(pool.submit(self._sample, paths, estimator))
                    if len(waiting) >= 4 * count:
                        yield waiting.popleft().result()
                while waiting:
                    stop_if_cancelled()
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _sample(self, paths: tuple[str, ...], estimator: Estimator) -> tuple[FloatImage | None, list[str]]:
        codes: list[str] = []
        for path in paths:
            try:
                return _checked(estimator, self._root / path), codes
            except SampleRefused as refused:
                codes.append(refused.code)
        return None, codes


def _locked(stream: IO[bytes]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _checked(estimator: Estimator, path: Path) -> FloatImage:
    from fedage.client.cohort.images import load_image

    image = load_image(path)
    try:
        sample = estimator.preprocess(image)
    except SampleRefused:
        raise
    except Exception as error:  # noqa: BLE001 (one odd image must not end a site's campaign)
        raise SampleRefused("preprocessing-failed", type(error).__name__) from None
    if sample.shape != tuple(estimator.sample_shape()):
        raise SampleRefused("wrong-sample-shape", f"{sample.shape}")
    if not np.all(np.isfinite(sample)):
        raise SampleRefused("not-finite", "a sample with NaN or infinity")
    return sample


def _name(selection: Selection, estimator: Estimator) -> str:
    options: Any = getattr(estimator, "options", None)
    parts = [
        __version__,
        PIXELS_VERSION,
        estimator.name,
        "" if options is None else options.model_dump_json(),
        list(estimator.sample_shape()),
        selection.snapshot,
        selection.files_digest,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(folder: Path, selection: Selection, shape: tuple[int, ...]) -> Samples | None:
    """The samples in a folder if they are there and whole."""
    try:
        about = read_json(folder / _ABOUT, most_bytes=MAX_RECORD_BYTES)
        rows = np.array(about["rows"], dtype=np.intp)
        whole: NDArray[np.float32] = np.empty((0, *shape), dtype=_DTYPE)
        if selection.n:
            whole = np.lib.format.open_memmap(folder / _ARRAY, mode="r")
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if whole.shape != (selection.n, *shape) or not np.isin(rows, np.arange(selection.n)).all():
        return None
    return Samples(selection=selection.keep(rows), array=whole[: rows.size], rejected=about["rejected"])
