"""Sites that come once a run has begun: admitted, started or approved later, they take part from the next round.

Attack: whoever joins in the middle may have been kept away until a model was ready to single its patients out. Rule: a
site that joins holds the model to what follows from the file and to as many steps as it missed, as one that was away.
Not taken in: sites that the file does not list where it lists any, and any site where sums are hidden or a whole site's
noise was sized, as those have agreed who takes part, or once another model is made of other folds. Residual risk: the
updates before and after tell what one site adds, as they do of one that leaves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from fedage.common.errors import FedAgeError
from fedage.common.estimators.configure import agreed_features
from fedage.common.protocol.messages import DESCRIBE
from fedage.server.sites.attendance import NOT_YET
from fedage.server.sites.session import Answer, Session

_ANSWER_S, _AGAIN_S = 10.0, 60.0
"""How long a round waits for the answer to a late offer, and the least time between two offers to one site, each of
which is a line in its log."""


@dataclass
class LateSites:
    """Takes sites in before a round."""

    session: Session
    described: dict[str, Answer]
    _offered: dict[int, float] = field(default_factory=dict)

    def take_in(self, *, round_number: int, next_step: str) -> list[str]:
        """The sites that take part from this round on; their answers to the offer join `described`.

        Parameters
        ----------
        round_number
            The round that begins.
        next_step
            What the journal calls it: a round that is replayed takes in whom it took in before, and nobody else.
        """
        session, step = self.session, f"{DESCRIBE}, before round {round_number}"
        if session.campaign.privacy.secure_aggregation or session.campaign.privacy.mode == "client":
            return []
        if session.admitted is None or session.sites_there:
            return []
        answers: dict[str, Answer] = {}
        if session.steps.is_next(step) and (before := session.steps.replayed(step)) is not None:
            answers = before.answers
            nodes = {site: node for node, site in session.admitted.items()}
            session.nodes |= {site: nodes[site] for site in answers if site in nodes}
        elif not session.steps.is_next(next_step):
            answers = self._offer(round_number)
            if answers:
                session.steps.keep(step, answers)
        self.described.update(answers)
        for site, answer in sorted(answers.items()):
            about = {"patients": answer.info.patients, "device": answer.info.device}
            session.events.emit("site", site=site, hidden=False, role=session.attendance.role(site), **about)
        return sorted(answers)

    def _offer(self, round_number: int) -> dict[str, Answer]:
        session = self.session
        now, answers = time.monotonic(), dict[str, Answer]()
        wanted = {
            node
            for node in session.grid.get_node_ids()
            if session.may_take_part(node)
            and node not in session.nodes.values()
            and self._may_be_asked(node)
            and now >= self._offered.get(node, -_AGAIN_S) + _AGAIN_S
        }
        if not wanted:
            return {}
        self._offered |= dict.fromkeys(wanted, now)
        session.offer(wanted, answers, enough=_after(_ANSWER_S))
        session.attendance.no_more_waiting()
        for site in list(answers):
            try:
                agreed_features(
                    session.campaign, {one: each.info.features for one, each in {**self.described, **answers}.items()}
                )
            except FedAgeError as differ:
                del answers[site]
                session.attendance.leave_out(site, str(differ), rule="features")
        for site in [site for site, node in session.nodes.items() if node in wanted and site not in answers]:
            del session.nodes[site]
        for site in answers:
            session.attendance.refused.pop(site, None)
            session.attendance.note(
                site, DESCRIBE, "came once the run had begun and takes part from here on", round_number=round_number
            )
        return answers

    def _may_be_asked(self, node: int) -> bool:
        """Whether a node's site has not refused for another reason than that nobody there had decided yet."""
        site = (self.session.admitted or {}).get(node, "")
        why = self.session.attendance.refused.get(site, NOT_YET)
        return why.startswith(NOT_YET)


def _after(wait_s: float) -> Callable[[], bool]:
    ends = time.monotonic() + wait_s
    return lambda: time.monotonic() >= ends
