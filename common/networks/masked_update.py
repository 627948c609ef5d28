"""A site's update in the ring of `privacy.ring`, weighted, and the mean of the sites' updates back.

A row of one word each: the weight n, n times the loss, then n Δ of every array in the order of the names. How far an
array may change is known from the model before and the bounds of a step, so that places are as many as there can be: of
the mean, an error of at most s 2^-(places + 1) / Σn for s sites.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import ROUNDING, RUNNING_STEP, StepLimits
from fedage.common.privacy import ring
from fedage.common.statistics.statistic import MAX_PATIENTS

UPDATE_WORDS = 1
"""64 bits: an update may be of millions of values, whose bounds are near each other."""
Arrays = Mapping[str, NDArray[Any]]
_AT_ONCE = 1 << 15
"""Values that are worked on while a processor's cache has them."""
_LARGEST_LOSS = 1e4
"""Losses are shown and nothing is computed with them; a larger one is told as this one."""


@dataclass(frozen=True)
class MeanUpdate:
    """What the sites' updates come to.

    Parameters
    ----------
    n
        Sum of the weights.
    loss
        Mean of the losses by weight.
    change
        Mean change of every array, float64.
    """

    n: int
    loss: float
    change: dict[str, NDArray[np.float64]]


def update_size(before: Arrays) -> int:
    """How many rows an update of this model has."""
    return 2 + sum(int(array.size) for array in before.values())


def update_rows(
    before: Arrays,
    change: Arrays,
    roles: ArrayRoles,
    *,
    limits: StepLimits,
    weight: int,
    loss: float,
    sites: int,
) -> ring.Words:
    """A site's weighted update, (v, 1).

    Raises
    ------
    ring.OutOfRange
        If it is not finite or goes further than a step may.
    """
    rows = np.empty((update_size(before), UPDATE_WORDS), dtype=np.uint64)
    head = np.array([weight, weight * min(max(loss, -_LARGEST_LOSS), _LARGEST_LOSS)], dtype=np.float64)
    rows[:2] = ring.encode(head, _head_places(sites), bounds=_HEAD, words=UPDATE_WORDS)
    for name, where, bound in _parts(before, roles, limits):
        values, own, places = np.ravel(change[name]), rows[where], _places(bound, sites)
        for start in range(0, values.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            weighted = weight * values[part].astype(np.float64)
            own[part] = ring.encode(weighted, places, bounds=bound * weight, words=UPDATE_WORDS)
    return rows


def mean_update(rows: ring.Words, before: Arrays, roles: ArrayRoles, *, limits: StepLimits, sites: int) -> MeanUpdate:
    """The mean from the sum of the rows of at most `sites` sites.

    Raises
    ------
    ring.OutOfRange
        If the weights sum to nothing.
    """
    n, loss = ring.decode(rows[:2], _head_places(sites))
    if not 1 <= n <= sites * MAX_PATIENTS:
        raise ring.OutOfRange("the weights of the updates sum to nothing that patients could be")
    change = {}
    for name, where, bound in _parts(before, roles, limits):
        mean, own, places = np.empty(before[name].size), rows[where], _places(bound, sites)
        for start in range(0, mean.size, _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            mean[part] = ring.decode(own[part], places) / n
        change[name] = mean.reshape(before[name].shape)
    return MeanUpdate(n=round(n), loss=float(loss / n), change=change)


_HEAD = np.array([MAX_PATIENTS, MAX_PATIENTS * _LARGEST_LOSS])


def _head_places(sites: int) -> NDArray[np.int64]:
    return ring.places_of(_HEAD, sites=sites, words=UPDATE_WORDS)


def _places(bound: float, sites: int) -> int:
    return int(ring.places_of(np.array([bound * MAX_PATIENTS]), sites=sites, words=UPDATE_WORDS)[0])


def _parts(before: Arrays, roles: ArrayRoles, limits: StepLimits) -> Iterator[tuple[str, slice, float]]:
    """Every array with its rows and how far an entry of it may change."""
    furthest = _furthest(before, roles, limits)
    start = 2
    for name in sorted(before):
        yield name, slice(start, start + before[name].size), furthest[name]
        start += before[name].size


def _furthest(before: Arrays, roles: ArrayRoles, limits: StepLimits) -> dict[str, float]:
    """How far one entry of each array may change in a round (`networks.steps`)."""
    excess = 1 + ROUNDING
    furthest = dict.fromkeys(roles.learnt, limits.step_norm * excess) | dict.fromkeys(roles.fixed, 1.0)
    for mean, variance in roles.running:
        most = float(np.max(before[variance], initial=0.0)) + 1e-5
        grown = most * math.exp(RUNNING_STEP * excess)
        furthest[mean], furthest[variance] = RUNNING_STEP * excess * math.sqrt(grown), grown
    return furthest
