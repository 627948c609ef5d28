"""Preprocessed samples on disk: made once for a cohort and an estimator, then read as a memory map."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.client.cohort.dicom import Undecodable, load_image
from fedage.client.cohort.query import Selection
from fedage.common._version import __version__
from fedage.common.estimators.base import Estimator, FloatImage, SampleRefused

Progress = Callable[[int, int], None]


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
        Images refused, by code; their patients are not in `selection`.
    """

    selection: Selection
    array: NDArray[np.float32]
    rejected: Mapping[str, int] = field(default_factory=dict)


class SampleCache:
    """Samples of a site under one folder, by cohort snapshot, estimator and FedAge version."""

    def __init__(self, folder: Path, *, root: Path) -> None:
        self._folder = folder
        self._root = root

    def build(self, selection: Selection, estimator: Estimator, *, progress: Progress | None = None) -> Samples:
        """The samples of a selection; made if they are not there. An image that cannot be used is counted."""
        name = self._name(selection, estimator)
        found = self._read(name, selection, estimator)
        if found is None:
            self._make(name, selection, estimator, progress)
            found = self._read(name, selection, estimator)
        if found is None:
            raise OSError("the sample cache was written and cannot be read back; is the disk full?")
        return found

    def _name(self, selection: Selection, estimator: Estimator) -> str:
        options: Any = getattr(estimator, "options", None)
        described = options.model_dump_json() if options is not None else ""
        text = json.dumps([__version__, estimator.name, described, selection.snapshot])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def _read(self, name: str, selection: Selection, estimator: Estimator) -> Samples | None:
        about = self._folder / f"{name}.json"
        if not about.is_file():
            return None
        told = json.loads(about.read_text())
        rows = np.array(told["rows"], dtype=np.intp)
        shape = (len(rows), *estimator.sample_shape())
        if rows.size == 0:
            array = np.empty(shape, dtype=np.float32)
        else:
            array = np.load(self._folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        if array.shape != shape:
            return None
        return Samples(selection.keep(rows), array, told["rejected"])

    def _make(self, name: str, selection: Selection, estimator: Estimator, progress: Progress | None) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        rejected: Counter[str] = Counter()
        rows: list[int] = []
        shape = estimator.sample_shape()
        partial = self._folder / f"{name}.{os.getpid()}.partial"
        whole = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(max(selection.n, 1), *shape))
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            results = pool.map(lambda path: self._sample(path, estimator), selection.images)
            for row, result in enumerate(results):
                if isinstance(result, str):
                    rejected[result] += 1
                else:
                    whole[len(rows)] = result
                    rows.append(row)
                if progress is not None:
                    progress(row + 1, selection.n)
        if len(rows) < selection.n:
            # Refused images leave rows free at the end: write the kept ones alone.
            kept = np.array(whole[: len(rows)])
            del whole
            with partial.open("wb") as stream:
                np.save(stream, kept)
        else:
            whole.flush()
            del whole
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(self._folder / f"{name}.npy")
        # The description comes last: without it the array is not there.
        about = self._folder / f"{name}.{os.getpid()}.json.partial"
        about.write_text(json.dumps({"rows": rows, "rejected": dict(rejected)}))
        about.replace(self._folder / f"{name}.json")

    def _sample(self, path: str, estimator: Estimator) -> FloatImage | str:
        try:
            return estimator.preprocess(load_image(self._root / path))
        except (SampleRefused, Undecodable) as refused:
            return refused.code
