"""Columns whose unit seems to differ between sites: medians that lie many standard deviations within sites apart.

A volume in ml at one site and in mm³ at the others makes a site's median differ by far more than its patients do. That
is said and never refused: sites may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from fedage.common.statistic import FloatArray
from fedage.common.wording import listed

_FAR_SDS = 10.0
_FEWEST_FOR_AN_SD = 10
_FEWEST_VALUES = 3
_SHOWN = 8


def far_medians_in_words(columns: Mapping[str, Mapping[str, FloatArray]]) -> list[str]:
    """One line for each site, or group of sites, that has columns with a median far from the other sites'.

    Parameters
    ----------
    columns
        By name, and by site, values (n,), NaN where missing.
    """
    by_sites: dict[tuple[str, ...], list[str]] = {}
    for column, by_site in columns.items():
        if far := tuple(_far(by_site)):
            by_sites.setdefault(far, []).append(column)
    return [_in_words(sites, found) for sites, found in by_sites.items()]


def _far(by_site: Mapping[str, FloatArray]) -> Iterator[str]:
    """Sites whose median lies more than ten SDs, of the site itself or as is usual, from the middle of the medians."""
    known = {site: values[np.isfinite(values)] for site, values in by_site.items()}
    known = {site: values for site, values in known.items() if values.size}
    # Of a column of two codes a site may hold nearly one alone, with an SD of next to nothing.
    if len(known) < 2 or np.unique(np.concatenate([*known.values()])).size < _FEWEST_VALUES:
        return
    # Medians, as a few codes for missing among the values move a mean; a column of one value at a site is a setting, or
    # a code that is said as such.
    enough = {site: values for site, values in known.items() if values.size >= _FEWEST_FOR_AN_SD}
    sds = {site: float(values.std()) for site, values in enough.items()}
    medians = {site: float(np.median(enough[site])) for site, sd in sds.items() if sd > 1e-9 * abs(enough[site].mean())}
    if len(medians) < 2:
        return
    centre, usual = float(np.median([*medians.values()])), float(np.median([sds[site] for site in medians]))
    far = [site for site, median in medians.items() if abs(median - centre) > _FAR_SDS * min(sds[site], usual)]
    # Of two, nobody can say which is the odd one: the SD follows the unit, so that one alone may look far.
    yield from medians if far and len(medians) == 2 else far


def _in_words(sites: Sequence[str], columns: Sequence[str]) -> str:
    shown = ", ".join(repr(column if len(column) <= 60 else f"{column[:59]}…") for column in columns[:_SHOWN])
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    median, what = ("median", "column") if len(columns) == 1 else ("medians", "columns")
    return (
        f"{listed(sites)}: the {median} of {what} {shown}{more} {'is' if len(columns) == 1 else 'are'} more than "
        f"{_FAR_SDS:g} standard deviations of a site's patients away from the middle of the sites' medians; if the "
        "unit differs, declare divide_by in that site's site.toml or recompute the table"
    )
