"""A site that answers what it likes: the real phases and handlers, with one site's replies altered on their way out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import MODEL_PREFIX, pack, unpack
from fedage.server.campaign.conduct import conduct
from fedage.server.campaign.run_so_far import Place
from fedage.server.record.events import read_events
from fedage.server.record.results import Results, SiteRecord, read_results
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid, MemorySite

Payload = dict[str, NDArray[Any]]
Info = dict[str, Any]
Alter = Callable[[str, Payload, Info], None]
"""Sees the kind of message, and the arrays and the info of the hostile site's answer, and changes them."""


class HostileGrid(InProcessGrid):
    """Sites in memory of which one, `hostile`, alters its answers."""

    def __init__(self, members: Iterable[MemorySite], alter: Alter, *, hostile: str = "b") -> None:
        super().__init__(members)
        self._alter, self._hostile = alter, hostile

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        outgoing = list(messages)
        ids = super().push_messages(outgoing)
        for identity, message in zip(ids, outgoing, strict=True):
            if self.names[message.metadata.dst_node_id] == self._hostile and identity in self._replies:
                self._replies[identity] = self._altered(self._replies[identity], to=message)
        return ids

    def _altered(self, reply: Message, *, to: Message) -> Message:
        fields = dict(reply.content.config_records["reply"])
        if fields["status"] != "ok":
            return reply
        info = json.loads(str(fields["info"]))
        record = reply.content.array_records.get("payload")
        payload = unpack(np.asarray(record["packed"].numpy())) if record is not None else {}
        self._alter(to.metadata.message_type, payload, info)
        content = RecordDict({"reply": ConfigRecord({**fields, "info": json.dumps(info)})})
        if payload:
            content["payload"] = ArrayRecord({"packed": Array(pack(payload))})
        return Message(content, reply_to=to)


def of_model(change: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[Payload], None]:
    """Alter every array of an update."""

    def alter(payload: Payload) -> None:
        for name in [name for name in payload if name.startswith(MODEL_PREFIX)]:
            payload[name] = change(payload[name])

    return alter


@dataclass(frozen=True)
class Outcome:
    """What a run with a hostile site recorded."""

    results: Results
    folder: Path
    rules: set[str]
    """Rules that events name for the hostile site."""

    @property
    def hostile(self) -> SiteRecord:
        return next(site for site in self.results.sites if site.name == "b")


def run(folder: Path, members: Iterable[MemorySite], text: str, alter: Alter) -> Outcome:
    grid = HostileGrid(members, alter)
    place = Place(folder=folder / "run", run="r1", environment="simulation", guard=True)
    conduct(PollingGrid(grid, poll_s=0.01), parse_campaign(text), place, key=None, admitted=grid.names)
    events = read_events(folder / "run" / "events.jsonl")
    named = {event.get("rule", "") for event in events if event.get("site") == "b"}
    return Outcome(read_results(folder / "run" / "results.json"), folder / "run", named - {""})
