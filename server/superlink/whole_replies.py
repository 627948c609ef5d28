"""A SuperLink that announces a reply once all of its parts are there, and few replies at a time.

Flower announces it with its header. The ServerApp then waits for the rest, and the replies of other nodes, whole for
long, wait behind it. It fetches all that are announced before it gives out the first: so its memory would grow with the
number of sites. `tests/server/superlink/test_whole_replies.py` holds what is used of Flower.
"""

from __future__ import annotations

import time
from typing import Any

_AT_A_TIME = 1


def announce_whole_replies() -> None:
    """Let the SuperLink's state on SQL, in this process, give out only replies that are whole."""
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState

    get_message_res = SqlLinkState.get_message_res

    def get_whole(self: SqlLinkState, message_ids: set[str], run_id: int) -> list[Any]:
        return get_message_res(self, message_ids - _not_yet(self, message_ids), run_id)

    setattr(SqlLinkState, "get_message_res", get_whole)  # noqa: B010 - mypy knows no assignment to a method


def _not_yet(state: Any, message_ids: set[str]) -> set[str]:
    """The messages whose reply is on its way, or waits for the next look as others are given out now.

    A node that is gone will not send the rest, and a message whose time is over has no reply any more: those are
    Flower's to answer.
    """
    from flwr.supercore.state.schema.linkstate_models import MessageIns, MessageRes, Node
    from sqlalchemy import select

    if not message_ids or not hasattr(state.object_store, "has_all"):
        return set()
    now = time.time()
    statement = (
        select(MessageRes.message_id, MessageRes.reply_to_message_id, MessageIns.created_at, MessageIns.ttl)
        .join(MessageIns, MessageIns.message_id == MessageRes.reply_to_message_id)
        .join(Node, Node.node_id == MessageIns.dst_node_id)
        .where(
            MessageRes.reply_to_message_id.in_(message_ids),
            MessageRes.delivered_at == "",
            Node.online_until > now,
        )
    )
    with state.session() as session:
        replies = session.execute(statement).all()
    there, later = 0, set[str]()
    for reply, asked, created_at, ttl in replies:
        if created_at + ttl > now:
            whole = state.object_store.has_all(reply)
            if not whole or there >= _AT_A_TIME:
                later.add(asked)
            there += whole
    return later
