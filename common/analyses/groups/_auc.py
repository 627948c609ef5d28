"""ROC AUC of two groups from the sites' counts, and when a difference of means cannot be told."""

from __future__ import annotations

import numpy as np

from fedage.common.analyses.base import Result
from fedage.common.analyses.groups import _roc
from fedage.common.statistics.statistic import Statistic

_BOUND_TOLERANCE = 1e-9
_ROC_STEP = 8
"""Cells between two points of the ROC curve."""


_HISTOGRAMS = tuple(f"{who}_{where}" for who in ("group", "reference") for where in ("first", "likely", "last"))


def _auc(total: Statistic) -> Result:
    """AUC of all pairs: pairs of one site as counted there, pairs across sites from the histograms."""
    group, reference = (
        _roc.Histogram(first=total[f"{who}_first"], likely=total[f"{who}_likely"], last=total[f"{who}_last"])
        for who in ("group", "reference")
    )
    everything = total.scalar("n_group") * total.scalar("n_reference")
    exact = total.scalar("pairs_won")
    share = {
        key: min(max((exact + won - total.scalar(f"own_{key}")) / everything, 0.0), 1.0)
        for key, won in _roc.pairs_between(group, reference).items()
    }
    auc = min(max(share["likely"], share["low"]), share["high"])
    rates = [
        np.concatenate([[0.0], np.cumsum(side.likely[::-1])[_ROC_STEP - 1 :: _ROC_STEP]]) / side.likely.sum()
        for side in (group, reference)
    ]
    result: Result = {
        "auc": auc,
        "auc_ci95": _roc.interval(auc, _roc.variance_between(group, reference)),
        "auc_low": share["low"],
        "auc_high": share["high"],
        "auc_error": max(auc - share["low"], share["high"] - auc),
        "auc_refused": "",
        **_auc_within_sites(total),
        "roc": {"true_positive": rates[0].tolist(), "false_positive": rates[1].tolist()},
    }
    why = _why_refused(result, open_width=share["joined_high"] - share["joined_low"])
    return {**result, **dict.fromkeys(("auc", "auc_ci95", "auc_error", "roc")), "auc_refused": why} if why else result


def _auc_within_sites(total: Statistic) -> Result:
    pairs = total.scalar("pairs")
    auc = total.scalar("pairs_won") / pairs
    variance = None if total.scalar("without_variance") > 0 else total.scalar("pairs_variance") / pairs**2
    return {"auc_within_sites": auc, "auc_within_sites_ci95": _roc.interval(auc, variance)}


def _why_refused(result: Result, *, open_width: float) -> str:
    """Why the AUC of all pairs is not given: what joined cells leave open is more than chance does.

    What the width of a cell by itself leaves open is no reason: it rounds gaps as an instrument would.
    """
    low, high = result["auc_ci95"] or (result["auc"], result["auc"])
    if open_width <= high - low + _BOUND_TOLERANCE:
        return ""
    chance = f"more than its 95 % interval ({high - low:.3f})" if result["auc_ci95"] else "and it has no 95 % interval"
    return (
        f"gaps that leave a site in joined cells only leave {open_width:.3f} open ({result['auc_low']:.3f} to "
        f"{result['auc_high']:.3f}), {chance}; the AUC of pairs of one site is exact"
    )
