"""Asking the sites: one signed request to each, answers as they arrive, refusals and failures recorded by site."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message

from fedage.common.campaign import Campaign
from fedage.common.campaign.types import QUORUM_WAIT_S
from fedage.common.protocol.heads import SignedHead
from fedage.common.protocol.messages import DESCRIBE, REPLAY, TRAIN, Packed, Payload, Reply, Request
from fedage.common.statistics.statistic import MAX_PATIENTS
from fedage.common.version import __version__
from fedage.server.record.events import EventLog
from fedage.server.record.heads import Heads
from fedage.server.record.journal import Journal
from fedage.server.sites.attendance import Attendance
from fedage.server.sites.failure_text import failure_text
from fedage.server.sites.flower_records import read_or_failure, request_content
from fedage.server.sites.incoming import Answer, CampaignFailed, Incoming
from fedage.server.sites.kept_steps import KeptSteps, Replayed, step_of
from fedage.server.sites.secure_setting import Setting
from fedage.server.sites.waiting import coming_back, online_when_enough
from fedage.server.superlink.grid import Again, Failure, PollingGrid, is_lost

__all__ = ["Answer", "CampaignFailed", "Session"]

_LATECOMERS_S = 10.0
_GATHER_S = 5.0
"""The offer goes to all expected sites at once, or after so long to those online: an administrator has to read it."""
_REOFFER_S, _REOFFER_SHARE, _REOFFER_MAX_S = 5.0, 0.05, 60.0
_Read = tuple[Reply, Packed]
_UNNAMED = "an unnamed site"  # in simulation a node that never answered


@dataclass
class Session:
    """One run of one campaign over a grid.

    `nodes` maps a site's name to its Flower node, `attendance` collects who takes part as what and what went wrong,
    `setting` has the keys by which sums are hidden now (`secure_sums`),
    `answered_last` are the sites that answered the last request. `admitted` is the name each node was admitted under,
    `heads` keeps the heads of the sites' audit logs; both None in simulation only, where nodes have no identity; there
    `sites_there` tells how many to wait for, and for no others.
    """

    grid: PollingGrid
    campaign: Campaign
    run: str
    key: Ed25519PrivateKey | None
    events: EventLog
    admitted: Mapping[int, str] | None
    heads: Heads | None = None
    nodes: dict[str, int] = field(default_factory=dict)
    attendance: Attendance = field(init=False)
    steps: KeptSteps = field(init=False)
    answered_last: frozenset[str] = frozenset()
    sites_there: int | None = None
    journal: Journal | None = None
    """Of the answers of this run, and of the one before that it goes on from; None in simulation only."""
    patients: dict[str, int] = field(default_factory=dict)  # by site, described: no answer may be of more
    setting: Setting | None = None
    _unheard: set[int] = field(default_factory=set)
    _resumed: bool = False

    def __post_init__(self) -> None:
        self.attendance = Attendance(self.events, role_in_file=self.campaign.role_of)
        self._incoming = Incoming(digest=self.campaign.digest, attendance=self.attendance, heads=self.heads)
        self._resumed = self.journal is not None and len(self.journal) > 0
        self.steps = KeptSteps(self.journal, self.attendance, self._incoming.last_heads, self.patients)

    @property
    def troubles(self) -> Mapping[str, list[str]]:
        """What went wrong at each site."""
        return self.attendance.troubles

    @property
    def refused(self) -> Mapping[str, str]:
        """Why a site does not take part at all."""
        return self.attendance.refused

    @property
    def last_heads(self) -> Mapping[str, SignedHead]:
        """By site, the last head of its audit log in this run that held; none in simulation."""
        return self._incoming.last_heads

    @property
    def training_sites(self) -> list[str]:
        """The sites online whose patients may make a model, in order."""
        return [site for site in sorted(self.nodes) if self.attendance.may(site, TRAIN)]

    @property
    def validating_sites(self) -> list[str]:
        """The sites online that by the file only validate, in order."""
        return [site for site in sorted(self.nodes) if self.campaign.role_of(site) == "validate"]

    def describe(self) -> dict[str, Answer]:
        """Offer the campaign to the nodes online and learn who they are and what they bring.

        Waits for the sites the file names, or where it names none for the quorum and a moment more: `campaign.wait_s`
        for them to come online, `campaign.approval_wait_s` for those online to approve. Nodes admitted under other
        names are not asked. A site that has not approved the campaign yet is asked again while this lasts, every few
        seconds at first and once a minute later: each offer is a line in its log. So is one whose answer was lost.

        Raises
        ------
        CampaignFailed
            If the quorum does not answer, the sites that train do not make it, or two nodes call themselves the same.
        """
        if (before := self.replayed(DESCRIBE)) is not None:
            sites = {site: node for node, site in (self.admitted or {}).items()}
            self.nodes = {site: sites[site] for site in before.answers if site in sites}
            return before.answers
        about = self.campaign.campaign
        answers: dict[str, Answer] = {}
        try:
            asked = self._gather(answers)
        finally:
            self.attendance.no_more_waiting()
        if not asked:
            raise CampaignFailed(
                f"no site was online within {about.wait_s:g} s; start the sites (fedage site start), "
                "or give them longer with campaign.wait_s"
            )
        for site in list(self.nodes):
            if site not in answers:
                del self.nodes[site]
        for site in about.sites:
            if not (site in answers or site in self.refused or site in self.troubles):
                self.attendance.note(site, DESCRIBE, "was not online or did not answer when the campaign began")
        makes_model = self.campaign.estimator is not None and self.campaign.bundle is None
        self.require_quorum(self._that_count(answers), step="offer", kind=TRAIN if makes_model else DESCRIBE)
        self.steps.keep(DESCRIBE, answers)
        return answers

    def _gather(self, answers: dict[str, Answer]) -> set[int]:
        """Offer, and offer again to the undecided, until the wait is over; the nodes that were asked."""
        about = self.campaign.campaign
        began = time.monotonic()
        deadline, approve_by, ask_again = began + about.wait_s, began + about.approval_wait_s, began
        asked: set[int] = set()
        told, awaited = -1, set[str]()
        while True:
            online = {node for node in self.grid.get_node_ids() if self.may_take_part(node)}
            expected = self.sites_there or max(len(about.sites), self.campaign.quorum)
            if len(online) != told:
                told = len(online)
                self.events.emit("nodes", online=told, expected=expected)
            now = time.monotonic()
            undecided = bool(online & {self.nodes[site] for site in self.attendance.undecided})
            late, gathered = now >= (max(deadline, approve_by) if undecided else deadline), len(online) >= expected
            if not self.sites_there and now >= began + _GATHER_S:
                gathered = True
            wanted = online - asked if late or gathered else set()
            if late or now >= ask_again:
                wanted |= online & ({self.nodes[site] for site in self.attendance.undecided} | self._unheard)
            if wanted:
                self.offer(wanted, answers)
                asked |= wanted
                now = time.monotonic()
                ask_again = now + min(max(_REOFFER_S, _REOFFER_SHARE * (now - began)), _REOFFER_MAX_S)
            if late or self._complete(answers) or (self.sites_there and len(asked) >= self.sites_there):
                return asked
            if awaited != set(self.attendance.undecided):
                awaited = set(self.attendance.undecided)
                until = datetime.now(UTC) + timedelta(seconds=max(approve_by, deadline) - time.monotonic())
                self.events.emit(
                    "approval-awaited",
                    sites=sorted(awaited),
                    digest=self.campaign.digest,
                    until=until.isoformat(timespec="seconds"),
                )
            if not about.sites and len(self._that_count(answers)) >= self.campaign.quorum:
                deadline = min(deadline, time.monotonic() + _LATECOMERS_S)
                approve_by = deadline
            time.sleep(0.3)

    def _that_count(self, answers: Collection[str]) -> list[str]:
        """The sites that count for the quorum: where a model is made, those whose policy lets them train."""
        makes_model = self.campaign.estimator is not None and self.campaign.bundle is None
        return [site for site in answers if not makes_model or self.attendance.may(site, TRAIN)]

    def may_take_part(self, node: int) -> bool:
        """Whether a node is admitted, and one of the sites that the file names, as far as its admission tells."""
        sites = self.campaign.campaign.sites
        if self.admitted is None:
            return True
        return node in self.admitted and (not sites or self.admitted[node] in sites)

    def _complete(self, answers: Mapping[str, Answer]) -> bool:
        sites = self.campaign.campaign.sites
        return bool(sites) and all(site in answers or site in self.refused for site in sites)

    def offer(self, nodes: set[int], answers: dict[str, Answer], *, enough: Callable[[], bool] | None = None) -> None:
        """Offer the campaign to nodes; the answers of those that accept go to `answers`."""
        request = self._request(DESCRIBE, campaign=self.campaign.text)
        after = self._incoming.heads_known({(self.admitted or {}).get(node, "") for node in nodes} - {""})
        replies: dict[int, _Read | Failure] = {}
        self._exchange(request, {node: {} for node in sorted(nodes)}, replies.__setitem__, enough=enough)
        for node, reply in sorted(replies.items()):
            known = (self.admitted or {}).get(node, "")
            if isinstance(reply, Failure):
                reason = f"did not answer the offer: {failure_text(reply.reason)}"
                self.attendance.note(known or _UNNAMED, DESCRIBE, reason)
                self._unheard.add(node)
                continue
            self._unheard.discard(node)
            head, packed = reply
            if self.admitted is not None and head.site != known:
                self.attendance.leave_out(known or _UNNAMED, "answers under another name than it was admitted with")
                continue
            if self.nodes.get(head.site, node) != node:
                raise CampaignFailed(f"two sites call themselves {head.site!r}; give one another name (site.toml)")
            expected = self.campaign.campaign.sites
            if expected and head.site not in expected:
                self.attendance.leave_out(head.site, "not among the sites that the campaign file names")
                continue
            self.nodes[head.site] = node
            if answer := self._incoming.accept(
                head, packed, step=DESCRIBE, nonce=request.nonce, after=after.get(head.site, 0)
            ):
                described = 0 if self.campaign.privacy.secure_aggregation else answer.info.patients
                if described is None or described > MAX_PATIENTS:
                    told = f"it has to say how many patients it brings, at most {MAX_PATIENTS:.0f}"
                    self.attendance.leave_out(answer.site, told, rule="described-patients")
                    continue
                answers[answer.site] = answer
                self.patients[answer.site] = described
                self.attendance.answer_to_offer(answer.site, answer.info.kinds)

    def ask(
        self,
        kind: str,
        payload: Payload,
        *,
        round_number: int = 0,
        fold: int = 0,
        sites: Collection[str] | None = None,
        on_arrival: Callable[[Answer], Answer] | None = None,
        enough: Callable[[], bool] | None = None,
        needed: int | None = None,
        each: Mapping[str, Payload] | None = None,
    ) -> dict[str, Answer]:
        """Send one request to the sites still online and wait for their answers until the round's deadline.

        Only sites whose policy answers this kind of message are asked, and of these only `sites` where given.
        `on_arrival` takes each answer that counts as it arrives; what it returns is kept in its place, so that large
        arrays need not wait in memory for the last site. Whoever gives it keeps the step in the journal; all others
        are kept, and looked for, here. Once there is `enough`, the other sites' answers are not waited for. With fewer
        than are `needed`, the quorum if not given, the step is not kept. `each` is what single sites get besides.
        """
        step = step_of(kind, round_number=round_number, fold=fold)
        if on_arrival is None and (before := self.replayed(step, sites=sites)) is not None:
            return before.answers
        wanted = {site for site in self.nodes if self.attendance.may(site, kind) and (sites is None or site in sites)}
        began = time.monotonic()
        online = self._online_for(wanted)
        wait_s = 0.0 if self.sites_there else self.campaign.quorum_wait_s - (time.monotonic() - began)
        nodes = {node: site for site, node in self.nodes.items() if site in wanted}
        lost = set(nodes) - online
        for site in sorted(nodes[node] for node in lost):
            self.attendance.note(site, kind, "offline", round_number=round_number)
        request, resent = self._request(kind, round_number=round_number, fold=fold), False
        after = self._incoming.heads_known(nodes.values())
        if self.journal is not None:
            fresh = {"nonce": request.nonce, "after": after}
            noted = self.journal.request(f"{step}, {__version__}", fresh)
            resent = noted["nonce"] != request.nonce
            # An answer that a site gave before the run was resumed ends where its log ended then.
            request, after = replace(request, nonce=str(noted["nonce"])), {**after, **noted["after"]}
        answers: dict[str, Answer] = {}
        stored_no_more: dict[int, str] = {}

        def arrived(node: int, reply: _Read | Failure) -> None:
            site = nodes[node]
            if isinstance(reply, Failure):
                self.attendance.note(site, kind, failure_text(reply.reason), round_number=round_number)
                if is_lost(reply):
                    lost.add(node)
                return
            head, packed = reply
            if head.site != site:
                self.attendance.note(site, kind, "answered under another name", round_number=round_number)
                return
            if resent and (head.status, head.rule) == ("refused", REPLAY):
                stored_no_more[node] = site
                return
            answer = self._incoming.accept(
                head, packed, step=kind, round_number=round_number, nonce=request.nonce, after=after.get(site, 0)
            )
            if answer is not None:
                answers[site] = answer if on_arrival is None else on_arrival(answer)

        sent = {node: payload if each is None else {**payload, **each[site]} for node, site in nodes.items()}
        self._exchange(request, {node: one for node, one in sent.items() if node not in lost}, arrived, enough=enough)
        if stored_no_more:
            request, resent = self._request(kind, round_number=round_number, fold=fold), False
            self._exchange(request, {node: sent[node] for node in stored_no_more}, arrived)
        quorum = self.campaign.quorum if needed is None else needed
        for back in coming_back(self.grid, lost, enough=lambda: len(answers) >= quorum, wait_s=wait_s):
            self._exchange(request, {node: sent[node] for node in back}, arrived)
        answers = dict(sorted(answers.items()))
        self._answered(answers, sites)
        # Without a quorum the run ends, and the step is to be asked for once more when it is resumed.
        if on_arrival is None and len(answers) >= quorum:
            self.steps.keep(step, answers)
        return answers

    def replayed(self, step: str, *, sites: Collection[str] | None = None) -> Replayed | None:
        """A step as it was when the run got there before, asked of `sites` or all; None if it did not."""
        before = self.steps.replayed(step)
        if before is not None:
            self._answered(before.answers, sites)
        return before

    def _answered(self, answers: Collection[str], sites: Collection[str] | None) -> None:
        """Note who answered last; a site that was not asked this time is where it was."""
        self.answered_last = (self.answered_last - set(self.nodes if sites is None else sites)) | set(answers)

    def _online_for(self, wanted: Collection[str]) -> set[int]:
        """The nodes online. Where too few of the wanted sites are, wait for them: they may just have been restarted."""
        wait_s = self.campaign.quorum_wait_s
        if self._resumed:  # perhaps with the whole coordinator, to which they connect again now
            wait_s, self._resumed = max(QUORUM_WAIT_S, wait_s, self.campaign.campaign.wait_s), False
        quorum, wanted_nodes = self.campaign.quorum, {site: self.nodes[site] for site in wanted}
        wait_s = 0.0 if self.sites_there else wait_s
        return online_when_enough(self.grid, wanted_nodes, quorum=quorum, wait_s=wait_s, events=self.events)

    def require_quorum(self, answers: Collection[str], *, step: str, kind: str) -> None:
        """Raise `CampaignFailed` unless the quorum answered."""
        quorum, found = self.campaign.quorum, len(answers)
        if found >= quorum:
            return
        did = "can train" if step == "offer" and kind == TRAIN else "answered"
        why = self.attendance.why_missing(answers, expected=self.campaign.campaign.sites, kind=kind)
        raise CampaignFailed(
            f"{step}: {found} {'site' if found == 1 else 'sites'} {did}, the quorum is {quorum} ({why})"
        )

    def _request(self, kind: str, *, round_number: int = 0, fold: int = 0, campaign: str = "") -> Request:
        return Request(
            kind=kind,
            digest=self.campaign.digest,
            run=self.run,
            round=round_number,
            fold=fold,
            campaign=campaign,
            version=__version__,
        )

    def _exchange(
        self,
        request: Request,
        payloads: Mapping[int, Payload],
        arrived: Callable[[int, _Read | Failure], None],
        *,
        enough: Callable[[], bool] | None = None,
    ) -> None:
        """One message a node, all with the same signed content where the payload is the same.

        `arrived` takes each node's reply, or why there is none, at once; no reply is kept here.
        """
        contents: dict[int, Any] = {}
        messages: list[Message] = []
        for node, payload in payloads.items():
            if id(payload) not in contents:
                contents[id(payload)] = request_content(request, payload, key=self.key)
            messages.append(
                Message(contents[id(payload)], message_type=request.kind, dst_node_id=node, group_id=str(request.round))
            )

        def read(node: int, reply: Message | Failure) -> None:
            self.events.emit("answer", site=self._site(node), step=request.kind, round=request.round)
            arrived(node, reply if isinstance(reply, Failure) else read_or_failure(reply))

        def once_more(node: int) -> Message:
            # The same signed bytes: a site that has answered them already gives its stored answer.
            content = contents[id(payloads[node])]
            return Message(content, message_type=request.kind, dst_node_id=node, group_id=str(request.round))

        def lost(node: int, failure: Failure) -> None:
            reason = f"{failure_text(failure.reason)}; asked again when it is back"
            self.attendance.note(self._site(node) or _UNNAMED, request.kind, reason, round_number=request.round)

        asked = sorted(self._site(node) or _UNNAMED for node in payloads)
        self.events.emit("asked", step=request.kind, round=request.round, fold=request.fold, sites=asked)
        again = None if self.sites_there else Again(message=once_more, tell=lost)
        self.grid.exchange(
            messages, deadline_s=self.campaign.deadline_s, on_reply=read, keep=False, stop=enough, again=again
        )

    def _site(self, node: int) -> str:
        return next((site for site, known in self.nodes.items() if known == node), (self.admitted or {}).get(node, ""))
