"""`flower-superlink` with one door for sites and the other for this machine only. Run by `SuperLink`.

Flower serves everything on one port: what SuperNodes need (`/v1/fleet`, each request signed with a node key), and what
starts runs and admits nodes (`/v1/control`) or is for the ServerApp (`/v1/runtime`), for which the open-source
SuperLink asks nobody's name. A site that could reach those could run its own code here, beside the signing key. From
other machines only the first is answered.
"""

from __future__ import annotations

import ipaddress
import math
import time
from typing import Any

from flwr.supercore.corestate.sql_corestate import SqlCoreState
from flwr.superlink import config_loader
from flwr.superlink import main as superlink_main
from flwr.superlink.cli import flower_superlink

from fedage.deploy.machine.processes import end_with_parent
from fedage.server.superlink.object_store import FileObjectStoreFactory
from fedage.server.superlink.prompt_routes import AsgiApp, PromptRoutes, Receive, Scope, Send
from fedage.server.superlink.whole_replies import announce_whole_replies

_EXPIRY_LOOK_S = 1.0

OPEN_PATHS = ("/v1/fleet/", "/health")


class LocalUnlessFleet:
    """ASGI middleware: other machines reach the fleet interface and the health check, and nothing else."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403, or pass on."""
        if scope["type"] == "lifespan" or may_pass(scope.get("path", ""), client=scope.get("client")):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})


def may_pass(path: str, *, client: tuple[str, int] | None) -> bool:
    """Whether a request for `path` from `client` (address, port) is answered at all."""
    if any(path == allowed.rstrip("/") or path.startswith(allowed.rstrip("/") + "/") for allowed in OPEN_PATHS):
        return True
    try:
        address = ipaddress.ip_address(client[0] if client else "")
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def free_keys_of_removed_nodes() -> None:
    """Let a node key be registered again after its node was removed; Flower keeps the key of a removed node for good.

    The row of the removed node stays, with its number after the key.
    """
    from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
    from flwr.supercore.constant import NodeStatus
    from flwr.supercore.state.schema.linkstate_models import Node as NodeModel
    from sqlalchemy import select

    create_node = SqlLinkState.create_node

    def create(self: SqlLinkState, owner_aid: str, owner_name: str, public_key: bytes, *more: Any, **named: Any) -> int:
        with self.session() as session:
            removed = session.scalars(
                select(NodeModel).where(NodeModel.public_key == public_key, NodeModel.status == NodeStatus.UNREGISTERED)
            )
            for node in removed:
                node.public_key = public_key + f"removed {node.node_id}".encode()
        return create_node(self, owner_aid, owner_name, public_key, *more, **named)

    setattr(SqlLinkState, "create_node", create)  # noqa: B010 - mypy knows no assignment to a method


def keep_objects_in_files() -> None:
    """Let Flower keep the parts of messages in `FileObjectStore`."""
    vars(config_loader)["ObjectStoreFactory"] = FileObjectStoreFactory


def look_for_expired_tasks_once_a_second() -> None:
    """Flower looks whenever it is asked for a run's status, which is for each part of a message, and locks for it."""
    look = SqlCoreState._cleanup_expired_task_tokens
    last: dict[int, float] = {}

    def look_at_times(self: SqlCoreState) -> None:
        now = time.monotonic()
        if now - last.get(id(self), -math.inf) >= _EXPIRY_LOOK_S:
            last[id(self)] = now
            look(self)

    setattr(SqlCoreState, "_cleanup_expired_task_tokens", look_at_times)  # noqa: B010 - as above


def main() -> None:
    """Run the SuperLink until told to stop."""
    end_with_parent()
    free_keys_of_removed_nodes()
    keep_objects_in_files()
    look_for_expired_tasks_once_a_second()
    announce_whole_replies()
    create = superlink_main.create_app

    def create_guarded(*arguments: Any, **options: Any) -> Any:
        app = create(*arguments, **options)
        app.add_middleware(PromptRoutes, linkstate_factory=app.state.linkstate_factory)
        app.add_middleware(LocalUnlessFleet)  # the outermost
        return app

    vars(superlink_main)["create_app"] = create_guarded
    flower_superlink()


if __name__ == "__main__":
    main()
