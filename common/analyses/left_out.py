"""How many patients an analysis left out: a cell like any other, which a site does not tell where it is small.

Attack: the number of an analysis' patients beside that of a part tells of one patient that a value is missing.
Rule: none, or at least the minimum count, are told; of fewer a site says only that there are some (`Field.few`).
"""

from __future__ import annotations

from collections.abc import Mapping

from fedage.common.statistics.statistic import MAX_PATIENTS, Field, FloatArray, Statistic

_COUNT, _FEW = "left_out", "left_out_few"


def left_out_fields() -> tuple[Field, Field]:
    """The count, and whether it is too small to be told."""
    return (
        Field(_COUNT, lower=0.0, upper=MAX_PATIENTS, whole=True, few=_FEW),
        Field(_FEW, lower=0.0, upper=1.0, whole=True),
    )


def left_out_values(count: int) -> Mapping[str, FloatArray | float]:
    """The blocks of these fields as a site counts them; whether the count leaves is decided where all sums leave."""
    return {_COUNT: float(count), _FEW: 0.0}


def left_out_result(total: Statistic) -> dict[str, int]:
    """`left_out`: patients left out at sites that tell them; `left_out_few_sites`: how many sites do not tell a few."""
    return {"left_out": round(total.scalar(_COUNT)), "left_out_few_sites": round(total.scalar(_FEW))}
