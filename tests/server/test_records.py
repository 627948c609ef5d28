"""Replies as a hostile site might send them: each is malformed, none is more than that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, Reply
from fedage.server.record.events import EventLog
from fedage.server.sites.session import Session
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid
from tests.server.test_taking_part import CAMPAIGN

GOOD = Reply(site="a", digest=parse_campaign(CAMPAIGN).digest, status="ok")


def array(data: bytes, *, dtype: str = "uint8", shape: tuple[int, ...] = (1,)) -> RecordDict:
    record = ArrayRecord({"packed": Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)})
    return RecordDict({"reply": ConfigRecord(dict(GOOD.to_fields())), "payload": record})


def numpy_file(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


HOSTILE = {
    "nothing": RecordDict(),
    "no packed": RecordDict(
        {"reply": ConfigRecord(dict(GOOD.to_fields())), "payload": ArrayRecord({"x": Array(np.zeros(1))})}
    ),
    "no numpy file": array(b"junk"),
    "a cut header": array(b"\x93NUMPY\x01\x00\xff"),
    "a header that is no dictionary": array(numpy_file("import os")),
    "a petabyte": array(numpy_file("{'descr': '|u1', 'fortran_order': False, 'shape': (1125899906842624,)}")),
    "pickled": array(numpy_file("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}") + b"cos\nsystem\n"),
    "deep info": RecordDict({"reply": ConfigRecord({**GOOD.to_fields(), "info": '{"a":' * 50_000})}),
    "numbers for text": RecordDict({"reply": ConfigRecord({**GOOD.to_fields(), "site": 7})}),
    "junk for a head": RecordDict({"reply": ConfigRecord({**GOOD.to_fields(), "audit": "[[["})}),
}


class Stranger(InProcessGrid):
    """One node that answers whatever it likes."""

    def __init__(self, content: RecordDict) -> None:
        super().__init__([])
        self.names = {1: "a"}
        self.content = content

    def push_messages(self, messages: object) -> list[str]:
        for message in messages:  # type: ignore[attr-defined]
            message.metadata.__dict__["_message_id"] = "one"
            self._replies["one"] = Message(self.content, reply_to=message)
        return ["one"]


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_reply_is_a_trouble_of_its_site_and_no_more(content: RecordDict, tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    grid = PollingGrid(Stranger(content), poll_s=0.01)
    session = Session(grid, parse_campaign(CAMPAIGN), "r", None, events, {1: "a"}, nodes={"a": 1})
    assert session.ask(ANALYSE, {}) == {}
    assert session.troubles["a"][0].startswith("analyse: malformed reply")
    events.close()
