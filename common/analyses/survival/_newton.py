"""Newton's method over exchanges: the part of a Cox model that the coordinator computes, the same for both models.

Stateless: everything the next step needs travels in the iterate. β is per standard deviation of each covariate, so its
bound means the same for all of them. The first exchange is at β = 0 in the covariates' own units (no risk weight is
needed there, so none have to be centred yet) and brings the means and SDs; each further exchange centres and scales.

Where a mean is large against its SD (a year of birth, a volume in mm³), Σx² − n x̄² cancels: then one more exchange at
β = 0, with the covariates less those means, brings the SDs to all digits. It tells what the first one told already.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np

from fedage.common.analyses.base import (
    MAX_EXCHANGES,
    Again,
    Done,
    Iterate,
    IterateRefused,
    NotComputable,
    Outcome,
    Result,
    check_iterate,
)
from fedage.common.analyses.columns import MAX_OUTCOME, MAX_PATIENTS, bound_of
from fedage.common.analyses.left_out import left_out_fields, left_out_result
from fedage.common.analyses.survival._partial_likelihood import Likelihood
from fedage.common.statistics.statistic import Field, FloatArray, Layout, Statistic

MAX_BETA = 4.0
"""Largest |β| per SD that a site answers for, a hazard ratio of 55 per SD. Weights are e^(β·z): the larger β, the more
of a risk set's sums is the one patient's with the largest β·z."""
SMALLEST_SCALE = 0.1
"""Of a site's own SD: a scale below it is refused there, as it would be a larger β in disguise. The SD of all sites
together falls below it only for a site that holds less than a hundredth of the patients."""
_LARGEST_Z = 1e6
"""Largest |z| at a site: of n patients together nobody is farther than √n SDs from the mean."""
_COARSEST = 1e-3
"""Of a site's own SD: what a centre may round values to."""
MOST_ITERATES = 60
"""Different β that a site answers for one model of the same patients, over all campaigns: each is another weighting of
their sums. A fit takes four to seven, which are the same each time that the same sites take part."""
_CONVERGED = 1e-6  # the Newton step in units of the standard error; the step is still taken, which squares the error
_DIVERGING_STEP = 0.01  # per SD, while the likelihood no longer rises
_SINGULAR = 1e-10  # smallest eigenvalue of the information scaled to a unit diagonal
_ROUNDING = 1e-13  # of a mean square: what n Σx² − (Σx)² is known to
_CANCELS = 1e-4  # of a mean square: a variance below it is asked for again around the mean
_LAST_DIGIT = 8 * float(np.finfo(np.float64).eps)  # of a mean: an SD below it is rounding
_CONSTANT = 1e-10  # information per event for a covariate in units of its SD
_LARGEST_LOG = 700.0
_Z95 = 1.959963984540054


def chosen(covariates: tuple[str, ...], kept: Sequence[bool]) -> tuple[str, ...]:
    """The covariates that are kept."""
    return tuple(name for name, inside in zip(covariates, kept, strict=True) if inside)


def check_newton(iterate: Iterate, covariates: tuple[str, ...]) -> None:
    """Refuse an iterate that Newton's method over these covariates cannot have produced."""
    if not iterate:
        return
    p = len(covariates)
    if set(iterate) == {"centre"}:
        check_iterate(iterate, {"centre": (p,)}, bound=MAX_OUTCOME)
        return
    vectors = dict.fromkeys(("beta", "last_beta", "centre", "scale"), (p,))
    scalars: dict[str, tuple[int, ...]] = dict.fromkeys(("last_log_likelihood", "null_log_likelihood", "exchange"), ())
    check_iterate(iterate, {**vectors, **scalars}, bound=2 * MAX_OUTCOME)
    bound = np.array([bound_of(covariate) for covariate in covariates])
    for name, largest in (("beta", MAX_BETA), ("last_beta", MAX_BETA), ("centre", bound), ("scale", 2 * bound)):
        if np.any(np.abs(iterate[name]) > largest):
            raise IterateRefused(f"iterate {name} must be within ±{np.max(largest):g}")
    if np.any(iterate["scale"] <= 0):
        raise IterateRefused("iterate scale must be above 0 (the covariates' standard deviations)")
    if not 2 <= iterate["exchange"] <= MAX_EXCHANGES:
        raise IterateRefused(f"iterate exchange must be 2 to {MAX_EXCHANGES}")


def account_of(model: object, covariates: tuple[str, ...], strata: tuple[str, ...], time: str, event: str) -> str:
    """A model's account: at most 128 characters that are the same for the same model under any name."""
    words = json.dumps([type(model).__name__, sorted(covariates), sorted(strata), time, event])
    return f"cox {hashlib.sha256(words.encode()).hexdigest()}"


def standardised(x: FloatArray, iterate: Iterate) -> FloatArray:
    """Covariates (n, p), centred and scaled by the iterate; in their own units while their SDs are not known.

    Attack: a centre of 2e17 rounds x − centre to multiples of 32, so that who is above 48 is a column of two values
    that no rule has looked at. Rule: a centre rounds by no more than the values themselves are rounded, or a small part
    of this site's SD.

    Raises
    ------
    IterateRefused
        If the scale of a covariate is below `SMALLEST_SCALE` of the SD of these patients, or they are farther from the
        centre than the patients of all sites can be from their mean.
    """
    if not iterate:
        return x
    spread = x.std(axis=0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
    if "scale" in iterate and np.any(iterate["scale"] < SMALLEST_SCALE * spread):
        raise IterateRefused(
            f"iterate scale must be at least {SMALLEST_SCALE:g} of the standard deviation of this site's own patients"
        )
    rounded_to = np.spacing(np.abs(np.asarray(iterate["centre"], dtype=np.float64)))
    allowed = np.maximum(_COARSEST * spread, 2 * np.spacing(np.abs(x).max(axis=0, initial=0.0)))
    standard: FloatArray = (x - iterate["centre"]) / iterate.get("scale", 1.0)
    is_far = "scale" in iterate and bool(np.any(np.abs(standard) > _LARGEST_Z))
    if is_far or np.any((rounded_to > allowed) & (spread > 0)):
        raise IterateRefused("iterate centre must be the mean of all sites' patients, and this one cannot be")
    return standard


def beta_of(iterate: Iterate, p: int) -> FloatArray:
    """β (p,) of the iterate; 0 while the SDs are not known."""
    return np.asarray(iterate["beta"], dtype=np.float64) if "beta" in iterate else np.zeros(p)


def largest_z(covariates: tuple[str, ...], iterate: Iterate) -> FloatArray:
    """Largest |z| that a site can have, (p,), for bounds."""
    bound = np.array([bound_of(covariate) for covariate in covariates])
    largest: FloatArray = (bound + np.abs(iterate.get("centre", 0.0))) / iterate.get("scale", 1.0)
    return largest


def common_fields(covariates: tuple[str, ...], iterate: Iterate) -> tuple[Field, ...]:
    """Counts, and at β = 0 Σx and Σx² (p,) in the covariates' own units, less the iterate's centre if it has one."""
    n, events = (Field(name, lower=0.0, upper=MAX_PATIENTS, whole=True) for name in ("n", "events"))
    counts = (n, *left_out_fields(), events)
    if "scale" in iterate:
        return counts
    bound, p = float(largest_z(covariates, iterate).max()), len(covariates)
    first = Field("x", (p,), lower=-bound * MAX_PATIENTS, upper=bound * MAX_PATIENTS)
    return (*counts, first, Field("x_squared", (p,), lower=0.0, upper=bound**2 * MAX_PATIENTS))


def with_moments(values: dict[str, FloatArray | float], z: FloatArray, layout: Layout) -> dict[str, FloatArray | float]:
    """Add Σz and Σz², of covariates `standardised` by this iterate, where the layout has them."""
    if not any(field.name == "x" for field in layout.fields):
        return values
    return {**values, "x": z.sum(axis=0), "x_squared": (z * z).sum(axis=0)}


def advance(
    likelihood: Likelihood, total: Statistic, iterate: Iterate, *, covariates: tuple[str, ...], about: Result
) -> Outcome:
    """The next iterate, the finished model, or why there is none.

    Parameters
    ----------
    likelihood
        At this iterate's β, summed over sites.
    total
        The summed statistic with the common fields.
    iterate
        The iterate that was answered.
    covariates
        Their names, for the result and for what cannot be computed.
    about
        Entries of the result that say which model this is.
    """
    events, p = total.scalar("events"), len(covariates)
    if "scale" not in iterate:
        n = total.scalar("n")
        if n < 1 or events < 1:
            return NotComputable(f"no event at all among {n:.0f} patients, so there is no hazard to compare")
        shifted = total["x"] / n
        centre = shifted + iterate.get("centre", 0.0)
        variance = (total["x_squared"] - n * shifted**2) / max(n - 1, 1)
        if not iterate and np.any(variance < _CANCELS * total["x_squared"] / n):
            return Again({"centre": centre})
        # Relative to the mean square: the rounding of the sums is, and a unit may be as small as it likes.
        constant = (variance <= _ROUNDING * total["x_squared"] / n) | (variance <= (_LAST_DIGIT * centre) ** 2)
        if constant.any():
            return NotComputable(f"{_names(covariates, constant)} is the same for all patients; leave it out")
        scale = np.sqrt(variance)
        likelihood = likelihood.per(scale)
        singular = _singular(likelihood.information, events, covariates)
        if singular:
            return NotComputable(singular)
        null, exchange = likelihood.log_likelihood, 2 if iterate else 1
        beta = last_beta = np.zeros(p)
    else:
        centre, scale, beta, last_beta = (iterate[name] for name in ("centre", "scale", "beta", "last_beta"))
        null, exchange = float(iterate["null_log_likelihood"]), int(iterate["exchange"])
        last = float(iterate["last_log_likelihood"])
        if not likelihood.log_likelihood >= last - 1e-9 * (1 + abs(last)):
            halved = (beta + last_beta) / 2
            return _again(halved, last_beta, last, centre=centre, scale=scale, null=null, exchange=exchange)

    step = _newton_step(likelihood)
    if step is None:
        return _diverges(covariates, np.abs(beta) == float(np.max(np.abs(beta))))
    proposed, outward = _within_bounds(beta, step, likelihood)
    # A long first step may touch the bound and come back, once the other coefficients have moved.
    if outward.any() and np.all(np.abs(proposed - beta) < _DIVERGING_STEP):
        return _beyond(covariates, outward)
    decrement = float(np.sqrt(max(float(likelihood.gradient @ step), 0.0)))
    if decrement < _CONVERGED:
        from scipy import special

        large = np.abs(step) > _DIVERGING_STEP
        if large.any():
            return _diverges(covariates, large)
        # One more step without asking for the likelihood there: to second order it rises by half the decrement².
        log_likelihood = likelihood.log_likelihood + decrement**2 / 2
        coefficients = _coefficients(covariates, (beta + step) / scale, likelihood.per(1 / scale).information, scale)
        statistic = 2 * (log_likelihood - null)
        return Done(
            {
                **about,
                "n": round(total.scalar("n")),
                "events": round(events),
                **left_out_result(total),
                "log_likelihood": log_likelihood,
                "null_log_likelihood": null,
                "likelihood_ratio": {"chi2": statistic, "df": p, "p": float(special.chdtrc(p, max(statistic, 0.0)))},
                "covariates": coefficients,
                "exchanges": exchange,
            }
        )
    return _again(proposed, beta, likelihood.log_likelihood, centre=centre, scale=scale, null=null, exchange=exchange)


def _again(
    beta: FloatArray,
    last_beta: FloatArray,
    last: float,
    *,
    centre: FloatArray,
    scale: FloatArray,
    null: float,
    exchange: int,
) -> Outcome:
    if exchange >= MAX_EXCHANGES or not np.any(np.abs(beta - last_beta) > 1e-12):
        return NotComputable(f"Newton's method did not converge in {exchange} exchanges; fewer covariates may help")
    return Again(
        {
            "beta": beta,
            "last_beta": last_beta,
            "centre": centre,
            "scale": scale,
            "last_log_likelihood": np.asarray(last),
            "null_log_likelihood": np.asarray(null),
            "exchange": np.asarray(exchange + 1.0),
        }
    )


def _newton_step(likelihood: Likelihood) -> FloatArray | None:
    """H⁻¹g (p,), solved on the scale of a unit diagonal; None if H is singular."""
    diagonal = np.diag(likelihood.information)
    if not np.all(diagonal > 0):
        return None
    root = np.sqrt(diagonal)
    try:
        step: FloatArray = np.linalg.solve(likelihood.per(root).information, likelihood.gradient / root) / root
    except np.linalg.LinAlgError:
        return None
    # gᵀH⁻¹g < 0 happens only when rounding has made a vanishing H indefinite.
    return step if np.all(np.isfinite(step)) and likelihood.gradient @ step >= -1e-12 else None


def _within_bounds(
    beta: FloatArray, step: FloatArray, likelihood: Likelihood
) -> tuple[FloatArray, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """The next β (p,) inside ±MAX_BETA, and which coefficients are held at the bound because they lead out of it.

    Those are held and the others take their own Newton step; a step that leaves the bound ends on it. Cutting each
    coefficient at the bound by itself would turn the step, and the likelihood need not rise along another direction.
    """
    outward = (np.abs(beta) >= MAX_BETA) & (step * beta > 0)
    if outward.any():
        free = np.flatnonzero(~outward)
        rest = Likelihood(0.0, likelihood.gradient[free], likelihood.information[np.ix_(free, free)])
        alone = _newton_step(rest) if free.size else None
        step = np.zeros_like(beta)
        if alone is not None:
            step[free] = alone
    length = 1.0
    for b, s in zip(beta, step, strict=True):
        if abs(b + s) > MAX_BETA and s * b > 0 and abs(b) < MAX_BETA:
            length = min(length, (MAX_BETA - abs(b)) / abs(s))
        elif abs(b + s) > MAX_BETA:
            length = min(length, (MAX_BETA + abs(b)) / abs(s))
    return np.clip(beta + length * step, -MAX_BETA, MAX_BETA), outward


def _singular(information: FloatArray, events: float, covariates: tuple[str, ...]) -> str:
    """Why the information at β = 0, per SD, cannot be inverted; empty if it can."""
    diagonal = np.diag(information)
    constant = diagonal <= _CONSTANT * events
    if constant.any():
        return (
            f"{_names(covariates, constant)} does not vary among the patients who are compared at any event "
            "(constant in every site or stratum); leave it out"
        )
    values, vectors = np.linalg.eigh(information / np.sqrt(np.outer(diagonal, diagonal)))
    if values[0] <= _SINGULAR:
        involved = np.abs(vectors[:, 0]) > 0.1
        return f"{_names(covariates, involved)} cannot be told apart: one follows from the others; leave one out"
    return ""


def _names(covariates: tuple[str, ...], which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> str:
    return ", ".join(name for name, chosen in zip(covariates, which, strict=True) if chosen)


def _diverges(covariates: tuple[str, ...], which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> NotComputable:
    return NotComputable(
        f"the coefficient of {_names(covariates, which)} grows without bound (monotone likelihood): it separates "
        "those with an event from those without; leave it out or join its levels"
    )


def _beyond(covariates: tuple[str, ...], which: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> NotComputable:
    return NotComputable(
        f"the coefficient of {_names(covariates, which)} goes beyond ±{MAX_BETA:g} per standard deviation, the largest "
        "that a site answers for: either it separates those with an event from those without (monotone likelihood), or "
        "its effect is that large; leave it out, join its levels, or transform a skewed one"
    )


def _coefficients(
    covariates: tuple[str, ...], coef: FloatArray, information: FloatArray, sd: FloatArray
) -> list[Result]:
    """One record a covariate, per unit and per SD, with Wald z = β/SE and its two-sided p."""
    from scipy import special

    root = np.sqrt(np.diag(information))
    se = np.sqrt(np.diag(np.linalg.inv(information / np.outer(root, root)))) / root
    return [
        {
            "name": name,
            "coef": float(b),
            "se": float(e),
            "z": float(b / e),
            "p": float(special.erfc(abs(b / e) / np.sqrt(2))),
            "hazard_ratio": _exp(b),
            "ci95": [_exp(b - _Z95 * e), _exp(b + _Z95 * e)],
            "sd": float(s),
            "hazard_ratio_per_sd": _exp(b * s),
            "ci95_per_sd": [_exp((b - _Z95 * e) * s), _exp((b + _Z95 * e) * s)],
        }
        for name, b, e, s in zip(covariates, coef, se, sd, strict=True)
    ]


def _exp(x: float) -> float | None:
    """e^x; None where a float cannot hold it, which happens per unit of a covariate with a tiny SD."""
    return float(np.exp(x)) if abs(x) < _LARGEST_LOG else None
