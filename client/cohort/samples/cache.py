"""Preprocessed samples on disk: computed once for a cohort and an estimator, then read by rows, one file an array.

A sample is a patient's: the named arrays that the estimator makes of the baseline exam.
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.samples.rows import RowFile, RowWriter
from fedage.client.cohort.sop_classes import PIXELS_VERSION
from fedage.client.cohort.store.query import EligibleImage, Selection
from fedage.client.site.cancel import stop_if_cancelled, wait_for
from fedage.common.estimators.base import ROW, Estimator, Rows, Samples
from fedage.common.estimators.inputs import image_inputs
from fedage.common.preprocessing.image import FloatImage
from fedage.common.version import __version__
from fedage.deploy.machine.atomic import sync
from fedage.deploy.machine.bounded import MAX_RECORD_BYTES, read_json

Progress = Callable[[int, int], None]
"""Called with the number of patients done and of all patients."""

_DTYPE = np.dtype("<f4")
_ABOUT, _LOCK, _BUILDING = "rows.json", "build.lock", ".building"


@dataclass(frozen=True)
class MadeSamples:
    """The patients whose exam became a sample.

    Parameters
    ----------
    selection
        Those patients, in order.
    samples
        Their arrays, float32, on disk; rows are read when they are asked for.
    rejected
        Images refused, by code; a patient none of whose images became a sample is not in `selection`.
    """

    selection: Selection
    samples: Samples
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
    ) -> MadeSamples:
        """The samples of a selection, made if they are not there yet. No image is fatal.

        Raises
        ------
        OSError
            If the disk is full or fails; nothing half-made is left to be taken for whole.
        Cancelled
            If the message that they are made for is cancelled; nothing half-made is left.
        """
        name = _cache_name(selection, estimator)
        shapes = _shapes(estimator)
        if (samples := _read(self._folder / name, selection, shapes)) is not None:
            return samples
        with self._building() as partial:
            if (samples := _read(self._folder / name, selection, shapes)) is not None:
                return samples  # another process made them while this one waited
            self._write(partial, selection, estimator, workers=workers, progress=progress)
            if _read(partial, selection, shapes) is None:
                raise OSError("the samples were written and do not read back whole; the disk may be full or failing")
            shutil.rmtree(self._folder / name, ignore_errors=True)  # there, but not whole
            partial.rename(self._folder / name)
            sync(self._folder)
        samples = _read(self._folder / name, selection, shapes)
        if samples is None:
            raise OSError("the samples vanished while they were made; let one agent at a time use this folder")
        return samples

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
        lacking: dict[str, list[int]] = {name: [] for name in _shapes(estimator)}
        with ExitStack() as stack:
            files = {
                name: RowWriter(
                    stack.enter_context((folder / _array_file(k)).open("wb")), dtype=_DTYPE, shape=(selection.n, *shape)
                )
                for k, (name, shape) in enumerate(_shapes(estimator).items())
            }
            for row, (sample, codes) in enumerate(self._samples(selection.images_by_input, estimator, workers=workers)):
                rejected.update(codes)
                if sample is not None:
                    for name, file in files.items():
                        if name not in sample:
                            lacking[name].append(len(rows))
                        file.write(sample.get(name))
                    rows.append(row)
                if progress is not None:
                    progress(row + 1, selection.n)
            for file in files.values():
                file.end()
        with (folder / _ABOUT).open("w", encoding="utf-8") as stream_text:
            about = {"rows": rows, "lacking": lacking, "rejected": dict(sorted(rejected.items()))}
            json.dump(about, stream_text)
            stream_text.flush()
            os.fsync(stream_text.fileno())
        sync(folder)

    def _samples(
        self, exams: Iterable[Mapping[str, tuple[EligibleImage, ...]]], estimator: Estimator, *, workers: int | None
    ) -> Iterator[tuple[Mapping[str, FloatImage] | None, list[str]]]:
        """Arrays, or None, and codes of refused images of each patient in order; few are held at a time."""
        # Imported here: the readers of images take a moment, and samples that are made need none.
        from fedage.client.cohort.samples.exams import arrays_of

        count = workers or os.cpu_count() or 1
        waiting: deque[Future[tuple[Mapping[str, FloatImage] | None, list[str]]]] = deque()
        with ThreadPoolExecutor(count, thread_name_prefix="samples") as pool:
            try:
                for images in exams:
                    stop_if_cancelled()
                    waiting.append(pool.submit(arrays_of, images, estimator, root=self._root))
                    if len(waiting) >= 4 * count:
                        yield waiting.popleft().result()
                while waiting:
                    stop_if_cancelled()
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _array_file(number: int) -> str:
    """File name of an array; the array's own name is free text of the estimator."""
    return f"array-{number}.npy"


def _shapes(estimator: Estimator) -> dict[str, tuple[int, ...]]:
    """Of the arrays that are made of images: a row beside them is read with the patients' columns."""
    return {name: tuple(shape) for name, shape in estimator.shapes().items() if name != ROW}


def _locked(stream: IO[bytes]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _cache_name(selection: Selection, estimator: Estimator) -> str:
    options: Any = getattr(estimator, "options", None)
    parts = [
        __version__,
        PIXELS_VERSION,
        estimator.name,
        getattr(estimator, "samples_version", 1),
        "" if options is None else options.model_dump_json(),
        sorted(_shapes(estimator).items()),
        [[one.name, one.rank, one.optional] for one in image_inputs(estimator)],
        selection.snapshot,
        selection.files_digest,
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _read(folder: Path, selection: Selection, shapes: Mapping[str, tuple[int, ...]]) -> MadeSamples | None:
    """The samples in a folder if they are there and whole."""
    try:
        about = read_json(folder / _ABOUT, most_bytes=MAX_RECORD_BYTES)
        rows = np.array(about["rows"], dtype=np.intp)
        arrays: dict[str, Rows] = {}
        present: dict[str, NDArray[np.bool_]] = {}
        for k, (name, shape) in enumerate(shapes.items()):
            arrays[name] = RowFile(folder / _array_file(k), dtype=_DTYPE, shape=(selection.n, *shape), count=rows.size)
            if lacking := about["lacking"][name]:
                present[name] = ~np.isin(np.arange(rows.size), lacking)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not np.isin(rows, np.arange(selection.n)).all():
        return None
    return MadeSamples(selection=selection.keep(rows), samples=Samples(arrays, present), rejected=about["rejected"])
