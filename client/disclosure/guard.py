"""The last step before anything leaves a site: no released number may rest on too few patients."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedage.common.errors import Refusal
from fedage.common.statistics.disclosure import suppress_small_cells, without_few
from fedage.common.statistics.statistic import Statistic


class Withheld(Refusal):
    """A contribution does not leave."""


def release(statistic: Statistic, *, minimum_count: int) -> Statistic:
    """Let a statistic pass without its small counts, or withhold it whole.

    Raises
    ------
    Withheld
        Rule `minimum-count` if a non-empty cell behind it has fewer than `minimum_count` patients. The cell's exact
        size is not told.
    """
    if statistic.smallest is None:
        raise Withheld("minimum-count", "no patient contributes to it")
    if statistic.smallest.count < minimum_count:
        raise Withheld("minimum-count", f"fewer than {minimum_count} patients in the cell {statistic.smallest.of!r}")
    return without_few(statistic, minimum=minimum_count)


def is_releasable(statistic: Statistic, *, minimum_count: int) -> bool:
    """Whether `release` lets it pass."""
    return statistic.smallest is not None and statistic.smallest.count >= minimum_count


def require(count: int, *, of: str, minimum_count: int) -> None:
    """Withhold unless at least `minimum_count` patients are behind it.

    Raises
    ------
    Withheld
        Rule `minimum-count`.
    """
    if count < minimum_count:
        raise Withheld("minimum-count", f"fewer than {minimum_count} {of}")


def releasable_counts(counts: Mapping[str, int], *, minimum_count: int) -> dict[str, int | None]:
    """Counts of patients with the small ones replaced by None; zero says nothing about anybody and stays."""
    return {name: count if count == 0 or count >= minimum_count else None for name, count in counts.items()}


def releasable_parts(counts: Mapping[str, int], *, minimum_count: int) -> dict[str, int | None]:
    """Counts of parts whose total is told as well: where one is None, another is too, so that none can be worked out.

    The hidden ones then hold at least `minimum_count` patients together.
    """
    cells = suppress_small_cells(np.array(list(counts.values()), dtype=np.float64), minimum_count)
    shown = dict(zip(counts, cells.shown.tolist(), strict=True))
    return {name: count if shown[name] else None for name, count in counts.items()}
