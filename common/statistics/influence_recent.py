"""The influence rule for an analysis in steps, which asks the same of the same patients at each of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from fedage.common.statistics._recent import Recent
from fedage.common.statistics.influence import BoolArray, Group, InfluenceRefused, InfluenceRule, passing

_answers: Recent[BoolArray | InfluenceRefused] = Recent(most=256)


def passing_as_before(groups: Sequence[Group], rule: InfluenceRule) -> BoolArray:
    """`passing`, computed once of the same groups."""
    answer = _answers.of(_content(groups, rule), lambda: _passing(groups, rule))
    if isinstance(answer, InfluenceRefused):
        raise InfluenceRefused(str(answer), rule=answer.rule)
    return answer.copy()


def _passing(groups: Sequence[Group], rule: InfluenceRule) -> BoolArray | InfluenceRefused:
    try:
        return passing(groups, rule)
    except InfluenceRefused as refused:
        return refused


def _content(groups: Sequence[Group], rule: InfluenceRule) -> bytes:
    """Digest of all that decides which columns pass."""
    digest = hashlib.sha256(repr(rule).encode())
    for group in groups:
        for name in (field.name for field in fields(group)):
            value = getattr(group, name)
            if isinstance(value, np.ndarray):
                digest.update(f"{name} {value.shape} ".encode())
                digest.update(np.ascontiguousarray(value, dtype="<f8").tobytes())
            else:
                digest.update(f"{name} {value!r} ".encode())
    return digest.digest()
