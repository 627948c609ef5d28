"""A reply is announced once all of its parts are in the SuperLink, against Flower's own state on SQLite."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.message_pb2 import ObjectTree
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from fedage.server.superlink import whole_replies
from fedage.server.superlink.object_store import FileObjectStore

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
PARTS = [b"head", b"first chunk", b"second chunk"]
IDS = [get_object_id(content) for content in PARTS]
REPLY = ObjectTree(object_id=IDS[0], children=[ObjectTree(object_id=name) for name in IDS[1:]])


def state_with_a_reply(folder: Path, store: Any, **changed: float | str) -> SqlLinkState:
    """One message to node 7 with the header of its reply; `changed` are columns that differ."""
    state = SqlLinkState(str(folder / "state.db"), NoOpFederationManager(), store)
    state.initialize()
    now = time.time()
    with state.session() as session:
        session.add(
            Node(node_id=7, status="online", online_until=changed.get("online_until", now + 60), public_key=b"")
        )
        session.add(MessageIns(message_id="asked", dst_node_id=7, created_at=now, ttl=changed.get("ttl", 60.0)))
        session.add(
            MessageRes(
                message_id=IDS[0],
                reply_to_message_id="asked",
                delivered_at=changed.get("delivered_at", ""),
                src_node_id=7,
            )
        )
    return state


def store_with(folder: Path, *parts: int) -> FileObjectStore:
    store = FileObjectStore(folder / "objects")
    store.verify = False
    store.preregister(1, REPLY)
    for number in parts:
        store.put(IDS[number], PARTS[number])
    return store


@pytest.mark.parametrize("there", [(), (0,), (0, 1), (1, 2)])
def test_a_reply_that_is_still_sent_is_not_asked_for(there: tuple[int, ...], tmp_path: Path) -> None:
    state = state_with_a_reply(tmp_path, store_with(tmp_path, *there))
    assert whole_replies._not_yet(state, {"asked", "another"}) == {"asked"}


@pytest.mark.parametrize(
    "changed",
    [{}, {"online_until": time.time() - 1}, {"ttl": -1.0}, {"delivered_at": "2026-01-01"}],
    ids=["whole", "its node is gone", "its time is over", "given out before"],
)
def test_what_is_whole_or_will_not_be_is_asked_for(changed: dict[str, float | str], tmp_path: Path) -> None:
    state = state_with_a_reply(tmp_path, store_with(tmp_path, *((0, 1) if changed else (0, 1, 2))), **changed)
    assert whole_replies._not_yet(state, {"asked"}) == set()


@pytest.mark.parametrize("others", [1, 2, 5])
def test_of_several_whole_replies_one_is_given_out_at_a_look(others: int, tmp_path: Path) -> None:
    """The ServerApp keeps all that it is given until it has fetched the last."""
    store = store_with(tmp_path, 0, 1, 2)
    state = state_with_a_reply(tmp_path, store)
    with state.session() as session:
        for number in range(others):
            session.add(MessageIns(message_id=f"more-{number}", dst_node_id=7, created_at=time.time(), ttl=60.0))
            session.add(
                MessageRes(
                    message_id=f"reply-{number}", reply_to_message_id=f"more-{number}", delivered_at="", src_node_id=7
                )
            )
    asked = {"asked", "unanswered", *(f"more-{number}" for number in range(others))}
    given = asked - whole_replies._not_yet(state, asked)
    assert len(given) == 2
    assert "unanswered" in given  # Flower may have something to say of it


def test_another_store_than_ours_announces_as_flower_does(tmp_path: Path) -> None:
    store = InMemoryObjectStore(verify=False)
    store.preregister(1, REPLY)
    assert whole_replies._not_yet(state_with_a_reply(tmp_path, store), {"asked"}) == set()


def test_the_state_asks_flower_for_the_others_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[set[str], int]] = []
    monkeypatch.setattr(SqlLinkState, "get_message_res", lambda _self, ids, run: asked.append((ids, run)) or [])
    monkeypatch.setattr(whole_replies, "_not_yet", lambda _state, ids: ids & {"b"})
    whole_replies.announce_whole_replies()
    given = {"a", "b", "c"}
    SqlLinkState.get_message_res(object(), given, 3)  # type: ignore[arg-type]
    assert asked == [({"a", "c"}, 3)]
    assert given == {"a", "b", "c"}
