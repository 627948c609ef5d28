"""A site's sums for one step, checked before they are added to anybody else's: an answer is a stranger's arrays."""

from __future__ import annotations

from dataclasses import dataclass

from fedage.common.protocol.messages import ANALYSE
from fedage.common.statistics.statistic import Layout, Statistic
from fedage.common.statistics.usable import why_unusable
from fedage.server.sites.session import Answer, Session


@dataclass(frozen=True)
class Missing:
    """Why there are no sums of a site for a step that can be used: in words, and the rule if it was broken."""

    reason: str
    rule: str = ""

    def __str__(self) -> str:
        return f"{self.reason} ({self.rule})" if self.rule else self.reason


def read_statistic(step: str, layout: Layout, answer: Answer, *, patients: int | None = None) -> Statistic | Missing:
    """A site's sums for a step, or why there are none that can be used (`why_unusable`).

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
    if (why := why_unusable(layout, vector, patients=patients)) is not None:
        return Missing(*why)
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
    usable: dict[str, Statistic] = {}
    missing: dict[str, str] = {}
    for site, answer in answers.items():
        read = read_statistic(step, layout, answer, patients=session.patients.get(site))
        if isinstance(read, Statistic):
            usable[site] = read
            continue
        missing[site] = str(read)
        if read.rule:
            trouble = f"{step} set aside: {read.reason}"
            session.attendance.note(site, kind, trouble, round_number=round_number, set_aside_by=read.rule)
    return usable, missing
