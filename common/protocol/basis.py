"""What a model of a run follows from, beyond the approved file: it travels with the model to sites that have to know.

A model that comes from rounds is a step from the one before. Every other one is worked out by each side: from the model
at the end of the last rounds before, and the sums over all sites of the exact phases since. The first one may begin
with arrays of a published file, whose digest stands in the campaign file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.protocol.messages import (
    GIVEN_PREFIX,
    PREPARATION_PREFIX,
    TRAINED_PREFIX,
    Payload,
    RequestRefused,
    bundle_of,
    join_bundle,
    split_iterates,
)

_TOTAL, _ITERATE = "total", "iterate|"


@dataclass(frozen=True)
class PreparedSums:
    """The sums over all sites that an exact phase is solved from, and the iterate they are for.

    Parameters
    ----------
    iterate
        Blocks of the analysis' last iterate, float64.
    total
        The sum of the sites' statistics for it, (v,) float64.
    """

    iterate: Mapping[str, NDArray[np.float64]]
    total: NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """What a model follows from.

    Parameters
    ----------
    trained
        The model at the end of the last rounds before; None where nothing was trained yet.
    sums
        Of the exact phases since, by the phase's name.
    given
        The arrays that the first model begins with; None where the file names none.
    bundle
        The bytes of the bundle that they are of, which travel in their place; empty where they are of none.
    """

    trained: Mapping[str, NDArray[Any]] | None = None
    sums: Mapping[str, PreparedSums] = field(default_factory=dict)
    given: Mapping[str, NDArray[Any]] | None = None
    bundle: bytes = b""

    def with_sums(self, phase: str, sums: PreparedSums) -> Basis:
        """The basis after one more exact phase."""
        return replace(self, sums={**self.sums, phase: sums})


def join_basis(basis: Basis) -> dict[str, NDArray[Any]]:
    """Payload names for a basis."""
    payload: dict[str, NDArray[Any]] = {TRAINED_PREFIX + name: array for name, array in (basis.trained or {}).items()}
    if basis.bundle:
        payload |= join_bundle(basis.bundle)
    else:
        payload |= {GIVEN_PREFIX + name: array for name, array in (basis.given or {}).items()}
    for phase, sums in basis.sums.items():
        payload[f"{PREPARATION_PREFIX}{phase}|{_TOTAL}"] = sums.total
        for block, values in sums.iterate.items():
            payload[f"{PREPARATION_PREFIX}{phase}|{_ITERATE}{block}"] = values
    return payload


def split_basis(payload: Payload) -> Basis:
    """The basis in a payload; an empty one if it brings none.

    Raises
    ------
    RequestRefused
        Rule `malformed-request` for sums that are not float64, or have other names.
    """
    trained = {n.removeprefix(TRAINED_PREFIX): a for n, a in payload.items() if n.startswith(TRAINED_PREFIX)}
    given = {n.removeprefix(GIVEN_PREFIX): a for n, a in payload.items() if n.startswith(GIVEN_PREFIX)}
    named = {n.removeprefix(PREPARATION_PREFIX): a for n, a in payload.items() if n.startswith(PREPARATION_PREFIX)}
    sums: dict[str, PreparedSums] = {}
    for phase, blocks in split_iterates(named).items():
        total = blocks.pop(_TOTAL, None)
        if total is None or any(not name.startswith(_ITERATE) for name in blocks):
            raise RequestRefused("malformed-request", "the sums of a phase are a total and one iterate, float64")
        sums[phase] = PreparedSums({name.removeprefix(_ITERATE): block for name, block in blocks.items()}, total)
    return Basis(trained or None, sums, given or None, bundle_of(payload) or b"")
