"""Each site's Σu apart, and the linear discriminant of the sites that follows: can a site be told from a patient's row?

The probe asks a site for nothing new: n and Σu of its own training patients, which it sends for the ridge regression in
the same exchange, stand once more in the row of its own. The published probe is a logistic regression; its iterates are
coordinates that a coordinator chooses and a site would have to keep account of, one exchange a step. The linear
discriminant (Fisher 1936), of which a logistic regression estimates the same directions where rows of a site are
normal, follows exactly from the sums that are there.

A coordinator sees these sums of each site anyway. Under secure aggregation the rows would show n and Σu of each site,
as would any probe's coordinates: it is refused there by the campaign file's check.

Legend: K sites, p columns, u as in `table_sums`, z = u standardised over all training patients, z̄ₖ mean of site k,
W = Σ(z − z̄ₖ)(z − z̄ₖ)ᵀ. Score of site k, all sites as likely: zᵀdₖ − ½ z̄ₖᵀdₖ, dₖ = (W/n + λ/n·I)⁻¹ z̄ₖ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fedage.common.analyses.columns import MAX_PATIENTS
from fedage.common.analyses.exact import NoSumOfPatients
from fedage.common.analyses.preparation import _ridge
from fedage.common.analyses.preparation.table_sums import CLIP, Moments
from fedage.common.statistics.statistic import Field, FloatArray, Statistic

_COUNT, _SUM = "site_n", "site_u"
_PENALTY = 1.0
"""λ: what one more patient adds at most to a column that is all that differs. [own]"""
_NEVER = -1e12
"""Constant of a site without patients: it is never the likeliest."""
_TOLERANCE = 1e-6


def fields(sites: int, features: int) -> tuple[Field, ...]:
    """The blocks `site_n` (K,) and `site_u` (K, p); none for no sites."""
    u = CLIP * MAX_PATIENTS
    return (
        (
            Field(_COUNT, (sites,), lower=0.0, upper=MAX_PATIENTS, whole=True),
            Field(_SUM, (sites, features), lower=-u, upper=u),
        )
        if sites
        else ()
    )


def own(sums: Statistic, *, site: str, sites: Sequence[str]) -> FloatArray:
    """The values (K + K·p,) of these blocks at a site, from its statistic of `table_sums`; zeros beside its own row."""
    counts, by_site = np.zeros(len(sites)), np.zeros((len(sites), sums["u"].shape[1]))
    if site in sites:
        at = list(sites).index(site)
        counts[at], by_site[at] = sums["n"].sum(), sums["u"].sum(axis=0)
    return np.concatenate([counts, by_site.ravel()])


def check(total: Statistic, everybody: Moments) -> None:
    """Refuse rows that no parts of these patients have.

    Attack: whoever sends a total makes the discriminant, a plane that parts patients, by rows of his own. Rule: the
    rows are of whole patients, all of them, with their Σu, and leave a W that patients can have; then z̄ₖ lie within the
    spread of all. Residual risk: within it, the directions are those of whoever sends the total.

    Raises
    ------
    NoSumOfPatients
    """
    counts, sums = total[_COUNT], total[_SUM]
    if np.any(counts != np.rint(counts)) or abs(counts.sum() - everybody.n) > 0.5:
        raise NoSumOfPatients("the patients of the sites are not those of the total")
    if np.any(sums[counts == 0] != 0):
        raise NoSumOfPatients("a site without patients has a sum")
    standard = _ridge.standard_of(everybody)
    scale = everybody.n * np.sqrt(standard.mean**2 + standard.sd**2)
    if np.any(np.abs(sums.sum(axis=0) - everybody.u) > _TOLERANCE * np.maximum(scale, 1.0)):
        raise NoSumOfPatients("the sums of the sites do not add up to the total")
    _, _, within = _standardised(total, everybody)
    if np.linalg.eigvalsh(within)[0] < -_TOLERANCE * everybody.n:
        raise NoSumOfPatients("the sites' means are further apart than patients of this total can be")


def discriminant(total: Statistic, everybody: Moments) -> dict[str, Any]:
    """`site_directions` (K, p) on standardised columns and `site_constants` (K,)."""
    counts, means, within = _standardised(total, everybody)
    spread = (within + _PENALTY * np.eye(len(within))) / everybody.n
    directions = np.linalg.solve(spread, means.T).T
    constants = np.where(counts > 0, -0.5 * (means * directions).sum(axis=1), _NEVER)
    return {"site_directions": directions.tolist(), "site_constants": constants.tolist()}


def likeliest(z: FloatArray, directions: FloatArray, constants: FloatArray) -> FloatArray:
    """The number (n,) from 1 of each row's likeliest site, of standardised rows (n, p)."""
    number: FloatArray = 1.0 + np.argmax(z @ directions.T + constants, axis=1)
    return number


def _standardised(total: Statistic, everybody: Moments) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Counts (K,), z̄ (K, p) and W (p, p); 0 for a site without patients and a column that does not vary."""
    counts = total[_COUNT]
    standard = _ridge.standard_of(everybody)
    unit = np.divide(1.0, standard.sd, out=np.zeros_like(standard.sd), where=standard.varies)
    means = (total[_SUM] / np.maximum(counts, 1.0)[:, None] - standard.mean) * unit
    means[counts == 0] = 0.0
    scatter = (everybody.uu - everybody.n * np.outer(standard.mean, standard.mean)) * np.outer(unit, unit)
    return counts, means, scatter - (means.T * counts) @ means
