"""Sites in memory with what a deployed one adds: an audit log whose signed head comes with each reply, and a policy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

from fedage.client.audit import AuditLog, Direction, Entry, Kind
from fedage.common.protocol.heads import key_to_hex
from fedage.common.protocol.messages import DESCRIBE, KINDS, packed_digest
from fedage.common.protocol.reply_signature import signed
from fedage.server.sites.flower_records import read_reply
from tests.machinery import InProcessGrid, MemorySite

Tamper = Callable[[str, str, dict[str, Any]], None]
"""Sees the site, the kind of message and the reply's fields before they leave, and may change them."""


class AuditedGrid(InProcessGrid):
    """Sites that tell key, kinds and heads, and sign their answers.

    One may refuse by rule: `refuse` names rule and sentence by site and kind. `asked` is what each site
    was sent: kind and nonce.
    """

    def __init__(
        self,
        members: Iterable[MemorySite],
        folder: Path,
        *,
        kinds: Mapping[str, list[str]] | None = None,
        refuse: Mapping[tuple[str, str], tuple[str, str]] | None = None,
        tamper: Tamper | None = None,
    ) -> None:
        super().__init__(members)
        self.logs: dict[str, AuditLog] = {}
        for name in self.names.values():
            (folder / name).mkdir(parents=True, exist_ok=True)
            self.logs[name] = AuditLog(folder / name)
        self.kinds = dict(kinds or {})
        self.refuse = dict(refuse or {})
        self.tamper = tamper
        self.asked: dict[str, list[tuple[str, str]]] = {name: [] for name in self.names.values()}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        outgoing = list(messages)
        ids = super().push_messages(outgoing)
        for identity, message in zip(ids, outgoing, strict=True):
            site, kind = self.names[message.metadata.dst_node_id], message.metadata.message_type
            self.asked[site].append((kind, str(message.content.config_records["request"]["nonce"])))
            if identity in self._replies:
                self._replies[identity] = self._finish(site, kind, self._replies[identity], to=message)
        return ids

    def _finish(self, site: str, kind: str, reply: Message, *, to: Message) -> Message:
        fields: dict[str, Any] = dict(reply.content.config_records["reply"])
        refusal = self.refuse.get((site, kind))
        if refusal:
            fields |= {"status": "refused", "rule": refusal[0], "reason": refusal[1], "info": "{}"}
        elif kind == DESCRIBE and fields["status"] == "ok":
            key = key_to_hex(self.logs[site].public_key)
            told = {"audit_key": key, "kinds": self.kinds.get(site, list(KINDS.values()))}
            fields["info"] = json.dumps({**json.loads(fields["info"]), **told})
        fields["audit"] = self.logs[site].append(Entry(direction=Direction.OUT, kind=Kind.of(kind))).to_json()
        if self.tamper is not None:
            self.tamper(site, kind, fields)
        content = RecordDict({"reply": ConfigRecord(fields)})
        if fields["status"] == "ok" and "payload" in reply.content:
            content["payload"] = reply.content["payload"]
        self._sign(site, content, nonce=str(to.content.config_records["request"]["nonce"]))
        return Message(content, reply_to=to)

    def _sign(self, site: str, content: RecordDict, *, nonce: str) -> None:
        """As the site's agent does; what no coordinator can read goes out unsigned."""
        try:
            head, packed = read_reply(Message(content, message_type="query", dst_node_id=1))
        except ValueError:
            return
        sealed = signed(head, nonce=nonce, payload_sha256=packed_digest(packed), sign=self.logs[site].sign)
        content["reply"] = ConfigRecord({**content.config_records["reply"], "signature": sealed.signature})
