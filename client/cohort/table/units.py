"""Columns whose unit seems to differ between sites: medians that lie many standard deviations within sites apart.

A volume in ml at one site and in mm³ at the others makes a site's median differ by far more than its patients do. Ages
and follow-up times in years spread widely within a site, and months that all lie below 130 pass for years: of them the
medians' ratio is looked at, and months, weeks or days are named where it is about 12, 52 or 365. That is said and never
refused: sites may differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fedage.common.presentation.wording import listed
from fedage.common.statistics.statistic import FloatArray

_FAR_SDS = 10.0
_FEWEST_FOR_AN_SD = 10
_FEWEST_VALUES = 3
_SHOWN = 8


_FAR_RATIO = 6.0
_PER_YEAR = {"months": 12.0, "weeks": 52.18, "days": 365.25}
_WITHIN = 2.0
"""By how much a ratio of medians may differ from that of two units: patients differ too."""


def distant_year_messages(columns: Mapping[str, Mapping[str, FloatArray]]) -> list[str]:
    """One line for each column of ages or times whose medians fall into two groups of sites, six times apart or more.

    Parameters
    ----------
    columns
        By name, and by site, values in years (n,), NaN where missing.
    """
    return [line for column, by_site in columns.items() if (line := _year_ratio_message(column, by_site))]


def _year_ratio_message(column: str, by_site: Mapping[str, FloatArray]) -> str:
    """What is said of one column; empty where its sites' medians do not fall apart."""
    known = {site: values[np.isfinite(values)] for site, values in by_site.items()}
    medians = {site: float(np.median(values)) for site, values in known.items() if values.size >= _FEWEST_FOR_AN_SD}
    sites_by_median = sorted((site for site in medians if medians[site] > 0), key=lambda site: medians[site])
    if len(sites_by_median) < 2:
        return ""
    steps = [medians[above] / medians[below] for below, above in pairwise(sites_by_median)]
    split = int(np.argmax(steps)) + 1
    if steps[split - 1] < _FAR_RATIO:
        return ""
    low, high = sites_by_median[:split], sites_by_median[split:]
    ratio = float(np.median([medians[site] for site in high]) / np.median([medians[site] for site in low]))
    unit = min(_PER_YEAR, key=lambda one: abs(np.log(ratio / _PER_YEAR[one])))
    if abs(np.log(ratio / _PER_YEAR[unit])) > np.log(_WITHIN):
        cause, mend = "holds another unit than years", "give years"
    else:
        cause = f"holds {unit} instead of years"
        mend = f"give years, or declare divide_by = {_PER_YEAR[unit]:g} where site.toml maps the column"
    low, high = sorted(low), sorted(high)
    if len(low) < len(high):
        comparison, where = f"about 1/{ratio:.0f} of that at the other sites", "there"
    elif len(low) > len(high):
        comparison, where = f"about {ratio:.0f} times that at the other sites", "here"
    else:
        return (
            f"{listed(sorted(sites_by_median))}: the median of column {_shortened(column)} at {listed(high)} is about "
            f"{ratio:.0f} times that at {listed(low)}, as where it {cause}; if so, {mend}"
        )
    return (
        f"{listed(min(low, high, key=len))}: the median of column {_shortened(column)} is {comparison}, as where it "
        f"{cause} {where}; if so, {mend}"
    )


def _shortened(column: str) -> str:
    return repr(column if len(column) <= 60 else f"{column[:59]}…")


_OLDEST_YEARS = 130.0
_FEWEST_TOO_OLD = 3
_LAST_MONTH, _FEWEST_WITH_MONTHS, _FEWEST_MONTHS = 11, 12, 6
_INFANT_YEARS = 2.0
_FEW_TOO_OLD = 0.05


_FROM_CONCEPTION = re.compile(
    r"post[\s_-]?menstrual|menstrual[\s_-]?age|gestation|post[\s_-]?concept|conceptional|\bsince[\s_-]conception"
    r"|fetal[\s_-]?age|(?:^|[^a-z])(?:pma|ga|pca)(?:$|[^a-z])",
    re.IGNORECASE,
)
_FROM_BIRTH = re.compile(r"post[\s_-]?natal|chronological|(?:after|since|from)[\s_-](?:the[\s_-])?birth", re.IGNORECASE)
_OF_ANOTHER_MOMENT = re.compile(
    r"\b(?:onset|diagnos[ie]s|death|decease|menarche|menopause|first (?:symptoms?|episode|seizure)|z-?scored?|z-?scores"
    r"|standardi[sz]ed|normali[sz]ed|log-?transformed|demeaned)\b",
    re.IGNORECASE,
)
_AT_EXAM = re.compile(
    r"\b(?:scan\w*|mri|imaging|exam\w*|acqui\w+|session|visit|enrol\w*|inclusion|assessment|baseline|recruit\w*)\b",
    re.IGNORECASE,
)
NOT_FROM_BIRTH = (
    "counts from conception or the last menstruation (postmenstrual, gestational), not from birth: give the age since "
    "birth"
)


def counts_from_conception(text: str) -> bool:
    """Whether a column's name or description speaks of an age that does not begin at birth.

    Examples
    --------
    >>> [counts_from_conception(text) for text in ("pma_weeks", "GA", "Postmenstrual age", "age_at_scan", "gap_years")]
    [True, True, True, False, False]
    >>> counts_from_conception("Postnatal age in weeks, whatever the gestational age at birth")
    False
    """
    return bool(_FROM_CONCEPTION.search(text)) and not _FROM_BIRTH.search(text)


def are_no_years(ages: FloatArray) -> bool:
    """Whether ages (n,) seem to be in another unit than years, NaN ignored.

    Of ages in months or days, those below 130 would be read as years, and only the others set aside. A few mistakes, or
    one code for missing (999), are no other unit: three different ages above 130, and more than one in twenty.
    """
    known = ages[np.isfinite(ages)]
    above = known[known > _OLDEST_YEARS]
    return bool(np.unique(above).size >= _FEWEST_TOO_OLD and above.size > _FEW_TOO_OLD * known.size)


def are_years_and_months(ages: FloatArray) -> bool:
    """Whether ages (n,) seem to be written as years.months, so that 45.11 is 45 years and 11 months; NaN ignored.

    Then no two digits behind the point are above 11; of two decimals, one in eight are not.

    Examples
    --------
    >>> are_years_and_months(np.array([6 + k + (k % 12) / 100 for k in range(24)]))
    True
    >>> are_years_and_months(np.array([6 + k + (k % 12) / 12 for k in range(24)]))
    False
    """
    hundredths = 100 * (ages[np.isfinite(ages)] % 1)
    months = np.rint(hundredths)
    if not months.size or np.abs(hundredths - months).max() > 1e-6 or months.max() > _LAST_MONTH:
        return False
    return bool(np.count_nonzero(months) >= _FEWEST_WITH_MONTHS and np.unique(months).size >= _FEWEST_MONTHS)


def unlikely_zeros(ages: FloatArray) -> NDArray[np.bool_]:
    """Which ages (n,), NaN ignored, are a 0 that stands for "unknown": where nobody else is younger than two.

    Examples
    --------
    >>> unlikely_zeros(np.array([0.0, 45, 61])).tolist(), unlikely_zeros(np.array([0.0, 0.5, 61])).tolist()
    ([True, False, False], [False, False, False])
    """
    others = ages[np.isfinite(ages) & (ages != 0)]
    is_zero: NDArray[np.bool_] = (ages == 0) & bool(others.size and others.min() >= _INFANT_YEARS)
    return is_zero


def is_another_age(text: str) -> bool:
    """Whether a description speaks of an age at another moment than an exam, or of numbers that are no ages.

    Examples
    --------
    >>> [is_another_age(text) for text in ("Age at onset of disease", "age (z-scored)", "age at death, years")]
    [True, True, True]
    >>> [is_another_age(text) for text in ("Age at scan; diagnosis is in another column", "Age in years", "")]
    [False, False, False]
    """
    return bool(_OF_ANOTHER_MOMENT.search(text)) and not _AT_EXAM.search(text)


def ages_problem(ages: FloatArray) -> str:
    """What is wrong with a column of ages (n,) that are not in years, after its name; empty if nothing is."""
    if are_no_years(ages):
        return (
            f"holds many ages above {_OLDEST_YEARS:g}, as where they are months or days, or years of birth; the others "
            "would be read as years: give ages in years"
        )
    if are_years_and_months(ages):
        return (
            "seems to hold years and months with a point between them (45.11 for 45 years and 11 months), which would "
            "be read as 45.11 years: give ages in years (45.92)"
        )
    return ""


def distant_median_messages(columns: Mapping[str, Mapping[str, FloatArray]]) -> list[str]:
    """One line for each site, or group of sites, that has columns with a median far from the other sites'.

    Parameters
    ----------
    columns
        By name, and by site, values (n,), NaN where missing.
    """
    by_sites: dict[tuple[str, ...], list[str]] = {}
    for column, by_site in columns.items():
        if far_sites := tuple(_distant_sites(by_site)):
            by_sites.setdefault(far_sites, []).append(column)
    return [_distant_median_message(sites, far_columns) for sites, far_columns in by_sites.items()]


def _distant_sites(by_site: Mapping[str, FloatArray]) -> Iterator[str]:
    """Sites whose median lies more than ten SDs, of the site itself or as is usual, from the middle of the medians."""
    known = {site: values[np.isfinite(values)] for site, values in by_site.items()}
    known = {site: values for site, values in known.items() if values.size}
    # Of a column of two codes a site may hold nearly one alone, with an SD of next to nothing.
    if len(known) < 2 or np.unique(np.concatenate([*known.values()])).size < _FEWEST_VALUES:
        return
    # Medians, as a few codes for missing among the values move a mean; a column of one value at a site is a setting, or
    # a code that is said as such.
    large = {site: values for site, values in known.items() if values.size >= _FEWEST_FOR_AN_SD}
    sds = {site: float(values.std()) for site, values in large.items()}
    medians = {site: float(np.median(large[site])) for site, sd in sds.items() if sd > 1e-9 * abs(large[site].mean())}
    if len(medians) < 2:
        return
    centre, typical_sd = float(np.median([*medians.values()])), float(np.median([sds[site] for site in medians]))
    far = [site for site, median in medians.items() if abs(median - centre) > _FAR_SDS * min(sds[site], typical_sd)]
    # Of two, nobody can say which is the odd one: the SD follows the unit, so that one alone may look far.
    yield from medians if far and len(medians) == 2 else far


def _distant_median_message(sites: Sequence[str], columns: Sequence[str]) -> str:
    shown = ", ".join(map(_shortened, columns[:_SHOWN]))
    more = f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else ""
    median, noun = ("median", "column") if len(columns) == 1 else ("medians", "columns")
    return (
        f"{listed(sites)}: the {median} of {noun} {shown}{more} {'is' if len(columns) == 1 else 'are'} more than "
        f"{_FAR_SDS:g} standard deviations of a site's patients away from the middle of the sites' medians; if the "
        "unit differs, declare divide_by in that site's site.toml or recompute the table"
    )
