"""Updates on disk, from their arrival to the end of the round.

Attack: somebody who reads the coordinator's disk sees a single site's update, which is more than the mean of all.
Rule: the folder is the coordinator's own (mode 0700) and is emptied when the round ends and when the next one begins.
Residual risk: a process that is killed leaves the updates of its last round there until its record is written.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from fedage.server.campaign.strategies.updates import Update


class Spool:
    """The updates of one round.

    Parameters
    ----------
    folder
        Made when it is first needed, by the mode 0700. One spool at a time has it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._patients: dict[str, int] = {}

    def add(self, update: Update) -> None:
        """Write one site's update. A second one of a site is an error of the caller's.

        Raises
        ------
        ValueError
            If the site has one already.
        OSError
            If the disk does not take it.
        """
        if update.site in self._patients:
            raise ValueError(f"the round has an update of {update.site} already")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Numbered: a site's name need not be a file's name.
        file = self._file(len(self._patients))
        arrays = {name: np.ascontiguousarray(array) for name, array in update.change.items()}
        safetensors.numpy.save_file(arrays, file)
        self._patients[update.site] = update.n

    def patients(self) -> dict[str, int]:
        """How many patients each update was trained on, in the order of the sites' names."""
        return dict(sorted(self._patients.items()))

    def arrays(self, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
        """One array of every update, one at a time, in the order of the sites' names."""
        numbers = {site: number for number, site in enumerate(self._patients)}
        for site in sorted(numbers):
            with safetensors.safe_open(self._file(numbers[site]), framework="numpy") as stored:
                yield site, stored.get_tensor(name)

    def updates(self) -> Iterator[Update]:
        """Every update whole, one at a time, in the order of the sites' names."""
        numbers = {site: number for number, site in enumerate(self._patients)}
        for site in sorted(numbers):
            yield Update(
                site=site, change=safetensors.numpy.load_file(self._file(numbers[site])), n=self._patients[site]
            )

    def clear(self) -> None:
        """Remove what is there, also that of a process before this one."""
        self._patients.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.safetensors"
