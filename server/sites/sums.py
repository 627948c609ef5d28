"""A site's sums for one step, checked before they are added to anybody else's: an answer is a stranger's arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedage.common.protocol.messages import ANALYSE
from fedage.common.statistics.statistic import MAX_PATIENTS, Layout, Statistic
from fedage.server.sites.session import Answer, Session

_ROUNDING = 1e-9
"""Relative excess of a bound that is put down to adding up in another order."""


@dataclass(frozen=True)
class Missing:
    """Why there are no sums of a site for a step that can be used: in words, and the rule if it was broken."""

    reason: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.rule})" if self.rule else self.reason


def read_statistic(step: str, layout: Layout, answer: Answer, *, patients: int | None = None) -> Statistic | Missing:
    """A site's sums for a step, or why there are none that can be used.

    Attack: a site whose sums are of patients that nobody has decides a pooled result.
    Rule: a sum lies within what the campaign file implies for as many patients as the site described, a count is a
    whole number of them. Residual risk: patients who are made up within these bounds, or more of them described than
    there are, cannot be told from real ones.

    Parameters
    ----------
    patients
        How many the site described; None where it was not asked.
    """
    if reason := answer.info.withheld.get(step):
        return Missing(str(reason))
    vector = answer.payload.get(step)
    if vector is None:
        return Missing("no contribution in the answer")
    if vector.dtype != np.float64:
        return Missing(f"a contribution of type {vector.dtype}; needed is float64", "sum-type")
    if vector.shape != (layout.size,):
        return Missing("a contribution of the wrong size", "sum-size")
    if not np.isfinite(vector).all():
        return Missing("a contribution with values that are not finite", "sum-not-finite")
    lower, upper = layout.bounds()
    if np.any(vector < lower) or np.any(vector > upper):
        return Missing("a contribution outside the bounds that the campaign file implies", "sum-bounds")
    whole = layout.whole()
    if np.any(vector[whole] != np.rint(vector[whole])):
        return Missing("a count that is not a whole number", "sum-count")
    if patients is not None:
        share = patients / MAX_PATIENTS * (1 + _ROUNDING)
        least, most = (np.where(np.abs(end) >= MAX_PATIENTS, end * share, end) for end in (lower, upper))
        if np.any(vector < least) or np.any(vector > most):
            return Missing(
                f"a contribution of more than the {patients} patients that the site described", "sum-patients"
            )
    return Statistic(layout=layout, vector=vector, smallest=None)


def usable_statistics(
    session: Session,
    step: str,
    layout: Layout,
    answers: dict[str, Answer],
    *,
    kind: str = ANALYSE,
    round_number: int = 0,
) -> tuple[dict[str, Statistic], dict[str, str]]:
    """By site the sums for a step, and why others have none; a broken rule is recorded with its name."""
    found: dict[str, Statistic] = {}
    missing: dict[str, str] = {}
    for site, answer in answers.items():
        read = read_statistic(step, layout, answer, patients=session.patients.get(site))
        if isinstance(read, Statistic):
            found[site] = read
            continue
        missing[site] = str(read)
        if read.rule:
            told = f"{step} set aside: {read.reason}"
            session.attendance.note(site, kind, told, round_number=round_number, set_aside_by=read.rule)
    return found, missing
