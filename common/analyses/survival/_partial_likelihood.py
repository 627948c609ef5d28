r"""Cox's log partial likelihood with its gradient and information, from patients or from tables of risk-set sums.

Notation: p covariates z, η = β·z, w = e^η. At an event time, over the risk set S0 = Σw, S1 = Σwz, S2 = Σwzzᵀ, over its
d tied deaths D0 … D2. Efron (1977): for l < d, f = l/d and A = S − fD,

    ll = Σ η − Σ log A0,   g = Σ z − Σ A1/A0,   H = Σ (A2/A0 − A1A1ᵀ/A0²),

sums over deaths on the left and over all (time, l) on the right; Breslow (1974) is f = 0. H is the information, minus
the second derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedage.common.statistics.statistic import FloatArray

Ties = Literal["efron", "breslow"]
_LOWEST_ETA = -600.0
"""Below the largest η of a stratum: keeps weights above 0 on the way to a fit; no fit that converges comes near."""


@dataclass(frozen=True)
class Likelihood:
    """The log partial likelihood at one β.

    Parameters
    ----------
    log_likelihood
        Its value.
    gradient
        (p,)
    information
        (p, p)
    """

    log_likelihood: float
    gradient: FloatArray
    information: FloatArray

    def __add__(self, other: Likelihood) -> Likelihood:
        return Likelihood(
            self.log_likelihood + other.log_likelihood,
            self.gradient + other.gradient,
            self.information + other.information,
        )

    def per(self, scale: FloatArray) -> Likelihood:
        """The same for covariates divided by `scale` (p,)."""
        return Likelihood(self.log_likelihood, self.gradient / scale, self.information / np.outer(scale, scale))


def pack(symmetric: FloatArray) -> FloatArray:
    """Upper triangles (…, p(p+1)/2) of symmetric matrices (…, p, p)."""
    rows, columns = np.triu_indices(symmetric.shape[-1])
    return symmetric[..., rows, columns]


def unpack(packed: FloatArray, p: int) -> FloatArray:
    """Symmetric matrices (…, p, p) from their upper triangles."""
    rows, columns = np.triu_indices(p)
    symmetric = np.empty((*packed.shape[:-1], p, p))
    symmetric[..., rows, columns] = packed
    symmetric[..., columns, rows] = packed
    return symmetric


def _per_death(deaths: NDArray[np.intp], ties: Ties) -> tuple[NDArray[np.intp], FloatArray]:
    """For each death (E,) the index of its time and its fraction f, from the deaths per time (T,)."""
    which = np.repeat(np.arange(deaths.size), deaths)
    if ties == "breslow":
        return which, np.zeros(which.size)
    order = np.arange(which.size) - np.repeat(np.cumsum(deaths) - deaths, deaths)
    return which, order / deaths[which]


def of_patients(
    z: FloatArray, time: FloatArray, event: NDArray[np.bool_], beta: FloatArray, *, ties: Ties
) -> Likelihood:
    """From one stratum's own patients: O(n log n + n p²), without any (n, p, p) array.

    The information's first part is linear in the patients: Σ A2/A0 = Σ_i c_i w_i z_i z_iᵀ, where c_i sums 1/A0 over the
    deaths at which patient i is at risk, less f/A0 over those that tie with her own.
    """
    p = z.shape[1]
    if not event.any():
        return Likelihood(0.0, np.zeros(p), np.zeros((p, p)))
    order = np.argsort(-time, kind="stable")
    # Subtracting a constant from z changes neither of the three (every death subtracts what its risk set subtracts).
    z, time, event = (z - z.mean(axis=0))[order], time[order], event[order]
    eta = z @ beta
    w = np.exp(np.maximum(eta - eta.max(), _LOWEST_ETA))
    wz = w[:, None] * z

    last = np.flatnonzero(np.append(np.diff(time) != 0, True))  # of each group of equal times, longest first
    group = np.searchsorted(last, np.arange(time.size))
    deaths = np.bincount(group[event], minlength=last.size)
    d0 = np.bincount(group[event], weights=w[event], minlength=last.size)
    d1 = np.column_stack([np.bincount(group[event], weights=column, minlength=last.size) for column in wz[event].T])

    which, f = _per_death(deaths, ties)
    a0 = np.cumsum(w)[last][which] - f * d0[which]
    mean = (np.cumsum(wz, axis=0)[last][which] - f[:, None] * d1[which]) / a0[:, None]
    at_time = np.bincount(which, weights=1 / a0, minlength=last.size)
    at_own = np.bincount(which, weights=f / a0, minlength=last.size)
    # Somebody in group k (longest first) is at risk at the times of groups k, k+1, …
    c = np.cumsum(at_time[::-1])[::-1][group] - np.where(event, at_own[group], 0.0)
    return Likelihood(
        log_likelihood=float((eta[event] - eta.max()).sum() - np.log(a0).sum()),
        gradient=z[event].sum(axis=0) - mean.sum(axis=0),
        information=(z * (c * w)[:, None]).T @ z - mean.T @ mean,
    )


def of_strata(
    z: FloatArray,
    time: FloatArray,
    event: NDArray[np.bool_],
    strata: FloatArray,
    beta: FloatArray,
    *,
    ties: Ties,
) -> Likelihood:
    """From the patients of one site; each distinct row of `strata` (n, k) is a stratum with its own baseline."""
    result = Likelihood(0.0, np.zeros(z.shape[1]), np.zeros((z.shape[1], z.shape[1])))
    if not time.size:
        return result
    _, stratum = np.unique(strata, axis=0, return_inverse=True) if strata.shape[1] else (None, np.zeros(time.size, int))
    order = np.argsort(stratum.ravel(), kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(stratum.ravel()[order])) + 1):
        result = result + of_patients(z[rows], time[rows], event[rows], beta, ties=ties)
    return result


def of_tables(tables: Mapping[str, FloatArray], z_of_deaths: FloatArray, beta: FloatArray, *, ties: Ties) -> Likelihood:
    """From risk-set sums at G event times (of all strata).

    Parameters
    ----------
    tables
        `deaths` (G,), `s0` (G,), `s1` (G, p), `s2` (G, p(p+1)/2), and for Efron `d0`, `d1`, `d2` likewise.
    z_of_deaths
        Σz over all deaths, (p,).
    """
    p = beta.size
    deaths = np.rint(tables["deaths"]).astype(np.intp)
    which, f = _per_death(deaths, ties)
    a0, a1 = tables["s0"][which], tables["s1"][which]
    if ties == "efron":
        a0 = a0 - f * tables["d0"][which]
        a1 = a1 - f[:, None] * tables["d1"][which]
    mean = a1 / a0[:, None]
    second = np.bincount(which, weights=1 / a0, minlength=deaths.size) @ tables["s2"]
    if ties == "efron":
        second = second - np.bincount(which, weights=f / a0, minlength=deaths.size) @ tables["d2"]
    return Likelihood(
        log_likelihood=float(beta @ z_of_deaths - np.log(a0).sum()),
        gradient=z_of_deaths - mean.sum(axis=0),
        information=unpack(second, p) - mean.T @ mean,
    )
