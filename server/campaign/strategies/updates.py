"""The updates of a round: what makes one count, where they wait for the others, and how far the model may move.

Attack: somebody who reads the coordinator's disk sees a single site's update, which is more than the mean of all.
Rule: the folder is the coordinator's own (mode 0700) and is emptied when the round ends and when the next one begins.
Residual risk: a process that is killed leaves the updates of its last round there until its record is written.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.arrays import Weights, is_finite_float32
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits, StepTooLong, clipped_step, learnt_norm, step_by
from fedage.common.protocol.messages import printable

_BLOCK = 1 << 15
"""Values that are added at a time."""


class UpdateRefused(ValueError):
    """A site's update that does not count. `.rule` is a short name, the message names the array."""

    def __init__(self, rule: str, detail: str) -> None:
        self.rule = rule
        super().__init__(detail)


@dataclass(frozen=True, kw_only=True)
class Update:
    """One site's change of the weights and the number of patients it was trained on.

    `steps` of the optimiser and `control_share` are told where there are control variates (`Scaffold`).
    """

    site: str
    change: Mapping[str, NDArray[Any]]
    n: int
    steps: int = 0
    control_share: float = 1.0


def check_update(
    update: Update,
    weights: Mapping[str, NDArray[Any]],
    *,
    patients: int | None,
    roles: ArrayRoles | None = None,
    limits: StepLimits | None = None,
    most_steps: int | None = None,
) -> None:
    """Make sure that an update fits the model, the site's own description of its cohort, and the bounds of a step.

    Attack: a site that answers with an update of its choice, or claims more patients than it has, decides the model.
    Rule: each of the checks below, by name. Residual risk: a site within them still pulls the model by its share of
    the patients it described, a step at a time.

    Parameters
    ----------
    patients
        How many the site described.
    roles, limits
        What the model's arrays are and how far it may move in a round; None checks no norm.
    most_steps
        The most steps of the optimiser that the update can be of; None where steps are not told.

    Raises
    ------
    UpdateRefused
        Rule `update-patients`, `update-steps`, `update-arrays`, `update-type`, `update-not-finite`, `update-norm`,
        `running-statistics` or `fixed-arrays`.
    """
    if update.n < 1:
        raise UpdateRefused("update-patients", "an update must come from at least one patient")
    if patients is None or update.n > patients:
        raise UpdateRefused("update-patients", "an update must not count more patients than the site described")
    if most_steps is not None and not 1 <= update.steps <= most_steps:
        raise UpdateRefused("update-steps", "an update must say the steps it was trained for, of one patient at least")
    if set(update.change) != set(weights):
        missing = sorted(printable(name)[:80] for name in set(update.change) ^ set(weights))
        raise UpdateRefused("update-arrays", f"the update's arrays are not the model's ({', '.join(missing[:3])} …)")
    for name, array in update.change.items():
        if array.shape != weights[name].shape:
            shape = weights[name].shape
            raise UpdateRefused("update-arrays", f"{name} has shape {array.shape}, the model's is {shape}")
        if array.dtype.kind != "f":
            raise UpdateRefused("update-type", f"{name} has type {array.dtype}, needed is float32")
        if not is_finite_float32(array):
            raise UpdateRefused("update-not-finite", f"{name} has values that are not finite in float32")
    if roles is None or limits is None:
        return
    try:
        step_by(weights, update.change, roles, limits=limits)
    except StepTooLong as long:
        rule = "update-norm" if long.rule == "model-step" else long.rule
        raise UpdateRefused(rule, str(long).replace("the model is further", "the update goes further")) from None


@dataclass(frozen=True)
class _Place:
    """Where an array lies in a spool's file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int


class Spool:
    """The updates of one round, on disk.

    A file is the arrays' bytes one after another; what lies where is known to this object only, as a file that a
    process before left is never read.

    Parameters
    ----------
    folder
        Made when it is first needed, by the mode 0700. One spool at a time has it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._patients: dict[str, int] = {}
        self._places: list[dict[str, _Place]] = []

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
        places: dict[str, _Place] = {}
        # Numbered: a site's name need not be a file's name.
        with self._file(len(self._patients)).open("wb") as stream:
            for name, array in update.change.items():
                places[name] = _Place(array.dtype, array.shape, stream.tell())
                stream.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        self._places.append(places)
        self._patients[update.site] = update.n

    def patients(self) -> dict[str, int]:
        """How many patients each update was trained on, in the order of the sites' names."""
        return dict(sorted(self._patients.items()))

    def add_up(self, name: str, counts: Mapping[str, int]) -> NDArray[np.float64]:
        """Σ count · array over the updates, one after another in the order of the sites' names.

        Block by block, so that what is added stays in the processor's cache.
        """
        files = [(counts[site], number) for site, number in self._in_order()]
        first = self._places[0][name]
        total: NDArray[np.float64] = np.zeros(first.shape, dtype=np.float64)
        flat = total.reshape(-1)
        scaled = np.empty(min(_BLOCK, flat.size), dtype=np.float64)
        read = np.empty(scaled.nbytes, dtype=np.uint8)
        with contextlib.ExitStack() as stack:
            streams = [
                (count, self._places[number][name], stack.enter_context(self._file(number).open("rb", buffering=0)))
                for count, number in files
            ]
            for begin in range(0, flat.size, _BLOCK):
                block = flat[begin : begin + _BLOCK]
                for count, place, stream in streams:
                    values = read[: block.size * place.dtype.itemsize].view(place.dtype)
                    _read(stream, place, into=values, begin=begin)
                    np.multiply(values, float(count), out=scaled[: block.size], dtype=np.float64)
                    block += scaled[: block.size]
        return total

    def updates(self) -> Iterator[Update]:
        """Every update whole, one at a time, in the order of the sites' names."""
        for site, number in self._in_order():
            change = {name: self._array(name, number) for name in self._places[number]}
            yield Update(site=site, change=change, n=self._patients[site])

    def arrays(self, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
        """One array of every update, one at a time, in the order of the sites' names."""
        for site, number in self._in_order():
            yield site, self._array(name, number)

    def clear(self) -> None:
        """Remove what is there, also that of a process before this one."""
        self._patients.clear()
        self._places.clear()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _in_order(self) -> list[tuple[str, int]]:
        return sorted((site, number) for number, site in enumerate(self._patients))

    def _array(self, name: str, number: int) -> NDArray[Any]:
        place = self._places[number][name]
        values = np.empty(math.prod(place.shape), dtype=place.dtype)
        with self._file(number).open("rb", buffering=0) as stream:
            _read(stream, place, into=values, begin=0)
        return values.reshape(place.shape)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number}.update"


def _read(stream: IO[bytes], place: _Place, *, into: NDArray[Any], begin: int) -> None:
    """Fill `into` with values of an array, from its value number `begin` on."""
    left, at = into.view(np.uint8).data, place.offset + begin * place.dtype.itemsize
    while left:
        if not (got := os.preadv(stream.fileno(), [left], at)):
            raise OSError("an update on disk is shorter than it was written")
        left, at = left[got:], at + got


def limited_step(
    before: Weights, after: Weights, roles: ArrayRoles, *, limits: StepLimits, path: float
) -> tuple[Weights, float, bool]:
    """The next model within the bounds that the sites hold it to, the norm of its step, and whether it was clipped.

    Parameters
    ----------
    path
        How far the run has come; what is left of `limits.path_norm` bounds the step too.
    """
    change = {name: after[name].astype(np.float64) - before[name] for name in before}
    allowed = max(0.0, min(limits.step_norm, limits.path_norm - path))
    within = clipped_step(before, change, roles, step_norm=allowed)
    if all(within[name] is change[name] for name in roles.moving):
        return after, learnt_norm(change, roles), False
    clipped = {name: (before[name].astype(np.float64) + within[name]).astype(before[name].dtype) for name in before}
    return clipped, learnt_norm(within, roles), True
