"""Asking the sites: one signed request to each, answers as they arrive, refusals and failures recorded by site."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Message
from numpy.typing import NDArray

from fedage.common._version import __version__
from fedage.common.campaign import Campaign
from fedage.common.protocol import DESCRIBE, Payload, Reply, Request
from fedage.server.events import EventLog
from fedage.server.network.grid import Failure, PromptGrid
from fedage.server.records import read_reply, request_content
from fedage.server.told import Told

_LATECOMERS_S = 10.0


class CampaignFailed(Exception):
    """A campaign cannot go on; the message says why and is written to the results."""


@dataclass(frozen=True)
class Answer:
    """One site's answer: what it says and the arrays it sends."""

    site: str
    info: Told
    payload: Mapping[str, NDArray[Any]]


@dataclass
class Session:
    """One run of one campaign over a grid.

    `nodes` maps a site's name to its Flower node, `troubles` collects what went wrong at each site in plain words,
    `answered_last` are the sites that answered the last request. `admitted` is the name each node was admitted under;
    None in simulation only, where nodes have no identity; there `sites_there` tells how many to wait for, and for no
    others.
    """

    grid: PromptGrid
    campaign: Campaign
    run: str
    key: Ed25519PrivateKey | None
    events: EventLog
    admitted: Mapping[int, str] | None
    nodes: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, list[str]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    answered_last: frozenset[str] = frozenset()
    sites_there: int | None = None

    def describe(self) -> dict[str, Answer]:
        """Offer the campaign to the nodes online and learn who they are and what they bring.

        Waits for the sites the file names, or where it names none for the quorum and a moment more, `campaign.wait_s`
        at most; nodes admitted under other names are not asked.

        Raises
        ------
        CampaignFailed
            If the quorum does not answer, or two nodes call themselves the same.
        """
        about = self.campaign.campaign
        deadline = time.monotonic() + about.wait_s
        answers: dict[str, Answer] = {}
        asked: set[int] = set()
        told = -1
        while True:
            online = {node for node in self.grid.get_node_ids() if self._may_take_part(node)}
            expected = self.sites_there or max(len(about.sites), self.campaign.quorum)
            if len(online) != told:
                told = len(online)
                self.events.emit("nodes", online=told, expected=expected)
            late = time.monotonic() >= deadline
            if online - asked and (late or len(online) >= expected):
                self._offer(online - asked, answers)
                asked |= online
            if late or self._complete(answers) or (self.sites_there and len(asked) >= self.sites_there):
                break
            if not about.sites and len(answers) >= self.campaign.quorum:
                deadline = min(deadline, time.monotonic() + _LATECOMERS_S)
            time.sleep(0.3)
        if not asked:
            raise CampaignFailed(
                f"no site was online within {about.wait_s:g} s; start the sites (fedage site start), "
                "or give them longer with campaign.wait_s"
            )
        for site in list(self.nodes):
            if site not in answers:
                del self.nodes[site]
        for site in self.campaign.campaign.sites:
            if site not in answers and site not in self.refused:
                self.troubles.setdefault(site, []).append("was not online or did not answer when the campaign began")
        self.require_quorum(answers, step="describe")
        return answers

    def _may_take_part(self, node: int) -> bool:
        """Whether a node is one of the sites the file names, as far as its admission tells."""
        sites = self.campaign.campaign.sites
        return not sites or self.admitted is None or self.admitted.get(node) in sites

    def _complete(self, answers: Mapping[str, Answer]) -> bool:
        sites = self.campaign.campaign.sites
        return bool(sites) and all(site in answers or site in self.refused for site in sites)

    def _offer(self, nodes: set[int], answers: dict[str, Answer]) -> None:
        """Offer the campaign to nodes; the answers of those that accept go to `answers`."""
        request = self._request(DESCRIBE, campaign=self.campaign.text)
        for node, reply in sorted(self._exchange(request, {node: {} for node in sorted(nodes)}).items()):
            known = self.admitted.get(node, "") if self.admitted is not None else ""
            if isinstance(reply, Failure):
                self.events.emit("site-failed", node=str(node), site=known, step=DESCRIBE, reason=reply.reason)
                who = known or f"node {node}"
                self.troubles.setdefault(who, []).append(f"did not answer the offer: {reply.reason}")
                continue
            head, payload = reply
            if self.admitted is not None and head.site != known:
                self.events.emit("site-left-out", site=known, reason="answers under another name")
                self.refused[known or f"node {node}"] = "answers under another name than it was admitted with"
                continue
            if head.site in self.nodes:
                raise CampaignFailed(f"two sites call themselves {head.site!r}; give one another name (site.toml)")
            expected = self.campaign.campaign.sites
            if expected and head.site not in expected:
                self.refused[head.site] = "not among the sites that the campaign file names"
                self.events.emit("site-left-out", site=head.site, reason=self.refused[head.site])
                continue
            self.nodes[head.site] = node
            if answer := self._accept(head, payload, step=DESCRIBE):
                answers[answer.site] = answer

    def ask(self, kind: str, payload: Payload, *, round_number: int = 0, fold: int = 0) -> dict[str, Answer]:
        """Send one request to the sites still online and wait for their answers until the round's deadline."""
        online = set(self.grid.get_node_ids())
        nodes = {node: site for site, node in self.nodes.items() if node in online}
        for site in sorted(set(self.nodes) - set(nodes.values())):
            self.note_trouble(site, kind, "offline", round_number)
        request = self._request(kind, round_number=round_number, fold=fold)
        replies = self._exchange(request, dict.fromkeys(nodes, payload))
        answers: dict[str, Answer] = {}
        for node, site in sorted(nodes.items(), key=lambda item: item[1]):
            reply = replies.get(node, Failure(code=0, reason="no answer before the deadline"))
            if isinstance(reply, Failure):
                self.note_trouble(site, kind, reply.reason, round_number)
                continue
            head, arrays = reply
            if head.site != site:
                self.note_trouble(site, kind, "answered under another name", round_number)
            elif answer := self._accept(head, arrays, step=kind, round_number=round_number):
                answers[site] = answer
        self.answered_last = frozenset(answers)
        return answers

    def require_quorum(self, answers: Mapping[str, Any], *, step: str) -> None:
        """Raise `CampaignFailed` unless the quorum answered."""
        quorum = self.campaign.quorum
        if len(answers) < quorum:
            reasons = "; ".join(
                f"{site}: {reason}"
                for site, reason in sorted({**{s: t[-1] for s, t in self.troubles.items()}, **self.refused}.items())
            )
            raise CampaignFailed(
                f"{step}: {len(answers)} sites answered, the quorum is {quorum} ({reasons or 'no other site known'})"
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
        self, request: Request, payloads: Mapping[int, Payload]
    ) -> dict[int, tuple[Reply, dict[str, NDArray[Any]]] | Failure]:
        """One message a node, all with the same signed content where the payload is the same."""
        contents: dict[int, Any] = {}
        messages: list[Message] = []
        for node, payload in payloads.items():
            if id(payload) not in contents:
                contents[id(payload)] = request_content(request, payload, key=self.key)
            messages.append(
                Message(contents[id(payload)], message_type=request.kind, dst_node_id=node, group_id=str(request.round))
            )
        answered: dict[int, tuple[Reply, dict[str, NDArray[Any]]] | Failure] = {}

        def tell(node: int, _reply: Message | Failure) -> None:
            self.events.emit("answer", site=self._site(node), step=request.kind, round=request.round)

        raw = self.grid.exchange(messages, deadline_s=self.campaign.deadline_s, on_reply=tell)
        for node, reply in raw.items():
            if isinstance(reply, Failure):
                answered[node] = reply
                continue
            try:
                answered[node] = read_reply(reply)
            except (ValueError, TypeError, KeyError):
                answered[node] = Failure(code=0, reason="malformed reply")
        return answered

    def _accept(
        self, head: Reply, payload: Mapping[str, NDArray[Any]], *, step: str, round_number: int = 0
    ) -> Answer | None:
        if head.status == "refused":
            self.note_trouble(head.site, step, f"refused ({head.rule}): {head.reason}", round_number)
            if step == DESCRIBE:
                self.refused[head.site] = f"{head.rule}: {head.reason}"
            return None
        if head.digest != self.campaign.digest:
            self.note_trouble(head.site, step, "answered for another campaign", round_number)
            return None
        try:
            info, odd = Told.of(head.info)
        except ValueError:
            self.note_trouble(head.site, step, "a malformed answer was set aside", round_number)
            return None
        if odd:
            self.note_trouble(head.site, step, f"told something malformed of {', '.join(odd)}; left out", round_number)
        return Answer(site=head.site, info=info, payload=payload)

    def note_trouble(self, site: str, step: str, reason: str, round_number: int) -> None:
        """Record what went wrong at a site, for the results and for whoever follows the run."""
        text = f"{step} (round {round_number}): {reason}" if round_number else f"{step}: {reason}"
        self.troubles.setdefault(site, []).append(text)
        self.events.emit("site-trouble", site=site, step=step, round=round_number, reason=reason)

    def _site(self, node: int) -> str:
        return next((site for site, known in self.nodes.items() if known == node), "")
