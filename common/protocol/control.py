"""A server's control variate in a request, and which round's update of each site counted last (SCAFFOLD)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedage.common.protocol.messages import CONTROL_PREFIX, COUNTED_PREFIX, Payload, RequestRefused


def join_control(control: Payload, *, counted: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Payload names for a control variate, and by site the last round whose update counted."""
    rounds = {COUNTED_PREFIX + site: np.array([number], dtype=np.int64) for site, number in counted.items()}
    return {**{CONTROL_PREFIX + name: array for name, array in control.items()}, **rounds}


def control_of(payload: Payload) -> dict[str, NDArray[Any]]:
    """The control variate of a payload, by the names of its arrays; none if it brings none."""
    return {name.removeprefix(CONTROL_PREFIX): a for name, a in payload.items() if name.startswith(CONTROL_PREFIX)}


def counted_round(payload: Payload, *, site: str) -> int | None:
    """The last round whose update of a site counted; None if the payload does not say. Raises `RequestRefused`."""
    told = payload.get(COUNTED_PREFIX + site)
    if told is None:
        return None
    if told.dtype != np.int64 or told.shape != (1,) or told[0] < 0:
        raise RequestRefused("malformed-request", "the round that counted last must be one whole number")
    return int(told[0])
