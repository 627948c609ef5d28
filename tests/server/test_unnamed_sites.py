"""What a run says of nodes that failed before they told their names, as simulated ones do."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from flwr.app import Error, Message

from fedage.common.campaign_file import parse_campaign
from fedage.server.record.events import EventLog
from fedage.server.sites.incoming import CampaignFailed
from fedage.server.sites.session import Session
from fedage.server.superlink.grid import PollingGrid
from tests.machinery import InProcessGrid
from tests.server.superlink.test_grid import RAY
from tests.server.test_taking_part import CAMPAIGN


class Failing(InProcessGrid):
    """Two nodes of Flower's engine in which the app raised."""

    def __init__(self) -> None:
        super().__init__([])
        self.names = {5550123456789: "", 5550123456790: ""}

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(f"to-{message.metadata.dst_node_id}")
            message.metadata.__dict__["_message_id"] = ids[-1]
            self._replies[ids[-1]] = Message(Error(code=2, reason=RAY), reply_to=message)
        return ids


def test_neither_an_engines_text_nor_a_nodes_number_is_told(tmp_path: Path) -> None:
    events = EventLog(tmp_path / "events.jsonl")
    text = CAMPAIGN.replace('sites = ["a", "b", "c"]\n', "")
    session = Session(PollingGrid(Failing(), poll_s=0.01), parse_campaign(text), "r", None, events, None, sites_there=2)
    with pytest.raises(CampaignFailed) as failed:
        session.describe()
    events.close()
    said = "describe (2 times): did not answer the offer: ClientAppException"
    assert session.troubles == {"an unnamed site": [said]}
    assert str(failed.value) == f"offer: 0 sites can train, the quorum is 2 (an unnamed site: {said})"
    told = (tmp_path / "events.jsonl").read_text()
    assert not any(word in told for word in ("5550", "Jane", "pid", "ray::"))
