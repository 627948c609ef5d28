"""Busy requests are answered by Flower's handlers at once, and those that go wrong by its whole app, unchanged."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.common.constant import TIMESTAMP_HEADER, Status
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TASK_TOKEN_HEADER
from flwr.supercore.date import now
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from fedage.server.superlink import prompt_routes
from fedage.server.superlink.object_store import FileObjectStore
from fedage.server.superlink.prompt_routes import PromptRoutes, Remembering, routes

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator:DeprecationWarning")
KEY, OTHER = (ec.derive_private_key(number, ec.SECP384R1()) for number in (5, 6))
PULL = "/v1/fleet/pull-messages"


class Link:
    """A SuperLink's state with one node, and the middleware in front of an app that notes what reaches it."""

    def __init__(self, folder: Path) -> None:
        self.state = SqlLinkState(
            str(folder / "state.db"), NoOpFederationManager(), FileObjectStore(folder / "objects")
        )
        self.state.initialize()
        self.node = self.state.create_node("owner", "owner", public_key_to_bytes(KEY.public_key()), 60)
        self.reached: list[tuple[str, bytes]] = []
        self.routes = PromptRoutes(self._app, linkstate_factory=SimpleNamespace(state=lambda: self.state))

    async def _app(self, scope: Any, receive: Any, _send: Any) -> None:
        body = b""
        more = scope["type"] == "http"
        while more:
            event = await receive()
            body, more = body + event.get("body", b""), event.get("more_body", False)
        self.reached.append((scope.get("path", ""), body))

    def call(self, path: str, message: Any, headers: dict[str, str], **scope: Any) -> bytes | None:
        """The body of a prompt answer; None if the app was to answer."""
        sent: list[Any] = []
        body = message.SerializeToString()
        events = [
            {"type": "http.request", "body": body[:3], "more_body": True},
            {"type": "http.request", "body": body[3:], "more_body": False},
        ]

        async def receive() -> Any:
            return events.pop(0)

        async def send(event: Any) -> None:
            sent.append(event)

        fields = {"content-type": PROTOBUF_MEDIA_TYPE, **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        asked = {"type": "http", "method": "POST", "path": path, "headers": raw, **scope}
        asyncio.run(self.routes(asked, receive, send))
        return sent[1]["body"] if sent else None


def signed(key: Any = KEY, *, of: Any = None, at: Any = None) -> dict[str, str]:
    when = (at or now()).isoformat()
    return {
        FLEET_HTTP_PUBLIC_KEY_HEADER: b64encode(public_key_to_bytes((of or key).public_key())).decode(),
        FLEET_HTTP_SIGNATURE_HEADER: b64encode(sign_message(key, when.encode("ascii"))).decode(),
        TIMESTAMP_HEADER: when,
    }


def pull(node: int) -> PullMessagesRequest:
    request = PullMessagesRequest()
    request.node.node_id = node
    return request


def test_a_node_that_signs_is_answered_as_flower_answers(tmp_path: Path) -> None:
    link = Link(tmp_path)
    answer = link.call(PULL, pull(link.node), signed())
    assert answer is not None
    assert PullMessagesResponse.FromString(answer) == PullMessagesResponse()
    assert link.reached == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed(OTHER),
        signed(OTHER, of=KEY),
        signed(at=now().replace(year=2020)),
        {**signed(), "content-type": "application/json"},
    ],
    ids=["unsigned", "a key of no node", "another's signature", "long ago", "no protobuf"],
)
def test_who_is_not_known_reaches_flowers_app_with_the_same_request(tmp_path: Path, headers: dict[str, str]) -> None:
    link = Link(tmp_path)
    request = pull(link.node)
    assert link.call(PULL, request, headers) is None
    assert link.reached == [(PULL, request.SerializeToString())]


def test_a_node_has_no_other_nodes_number(tmp_path: Path) -> None:
    link = Link(tmp_path)
    assert link.call(PULL, pull(link.node + 1), signed()) is None


def test_a_removed_node_is_let_in_no_longer_than_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(tmp_path)
    assert link.call(PULL, pull(link.node), signed()) is not None
    link.state.delete_node("owner", link.node)
    assert prompt_routes._KNOWN_S <= 1
    monkeypatch.setattr(prompt_routes, "_KNOWN_S", 0.0)
    assert link.call(PULL, pull(link.node), signed()) is None


def test_what_is_not_named_reaches_flowers_app(tmp_path: Path) -> None:
    link = Link(tmp_path)
    for path in ("/v1/control/start-run", "/v1/fleet/activate-node", "/v1/runtime/acquire-task", f"{PULL}/x"):
        assert link.call(path, pull(link.node), signed()) is None
    assert link.call(PULL, pull(link.node), signed(), method="GET") is None
    assert link.call(PULL, pull(link.node), signed(), type="websocket") is None
    assert len(link.reached) == 6


def test_a_runs_own_process_is_known_by_its_token(tmp_path: Path) -> None:
    link = Link(tmp_path)
    run = link.state.create_run(None, None, None, {}, "federation", None, "owner", "flwr-serverapp")
    (task,) = link.state.get_tasks()
    token = link.state.claim_task(task.task_id)
    assert token is not None
    link.state.activate_task(task.task_id)
    request = PullObjectRequest(run_id=run, object_id="none")
    request.node.node_id = prompt_routes.runtime_handlers.SUPERLINK_NODE_ID
    path = "/v1/runtime/pull-object"
    answer = link.call(path, request, {TASK_TOKEN_HEADER: token})
    assert answer is not None
    assert PullObjectResponse.FromString(answer) == PullObjectResponse(object_found=False, object_available=False)
    assert link.call(path, request, {TASK_TOKEN_HEADER: f"{token}x"}) is None
    assert link.call(path, request, {}) is None


def test_parts_of_no_run_are_flowers_to_refuse(tmp_path: Path) -> None:
    link = Link(tmp_path)
    request = PushObjectRequest(run_id=3, object_id="none", object_content=b"x" * 100)
    request.node.node_id = link.node
    assert link.call("/v1/fleet/push-object", request, signed()) is None
    assert link.reached[0][1] == request.SerializeToString()


@pytest.mark.parametrize(("status", "looks"), [(Status.RUNNING, 1), (Status.FINISHED, 3), (Status.PENDING, 3)])
def test_only_a_run_that_goes_on_is_remembered(status: str, looks: int) -> None:
    asked: list[set[int]] = []
    found = {7: SimpleNamespace(status=status)}
    state = Remembering(SimpleNamespace(get_run_status=lambda runs: asked.append(runs) or found))
    assert [state.get_run_status({7}) for _ in range(3)] == [found] * 3
    assert len(asked) == looks


def test_bytes_are_added_up_and_told_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int, int]] = []
    state = Remembering(
        SimpleNamespace(store_traffic=lambda run, *, bytes_sent, bytes_recv: told.append((run, bytes_sent, bytes_recv)))
    )
    state.store_traffic(1, bytes_sent=5, bytes_recv=0)
    state.store_traffic(1, bytes_sent=0, bytes_recv=2)
    assert told == []
    later = time.monotonic() + 2
    monkeypatch.setattr(prompt_routes.time, "monotonic", lambda: later)
    state.store_traffic(1, bytes_sent=1, bytes_recv=1)
    assert told == [(1, 6, 3)]


def test_flower_has_these_requests_and_asks_them_of_no_more(tmp_path: Path) -> None:
    fleet = import_module("flwr.superlink.routers.fleet.router").router
    runtime = import_module("flwr.supercore.routers.runtime.router").router
    paths = {route.path for router in (fleet, runtime) for route in router.routes}
    assert {path.removeprefix("/v1/runtime") if path not in paths else path for path in routes()} <= paths
    assert all(("POST", path) in PROTOBUF_REQUEST_TYPES for path in routes())
    # Beside these, Flower's layers do nothing for them: translate, authenticate, and note events if somebody asks to.
    names = {middleware.cls.__name__ for middleware in import_module("flwr.superlink.main")._get_middleware()}
    assert names == {
        "ControlSensitiveResponseMiddleware",
        "BaseHTTPMiddleware",
        "ControlAuthenticationMiddleware",
        "ControlLicenseMiddleware",
        "ProtobufTranslationMiddleware",
        "RuntimeTracingMiddleware",
        "ControlEventLogMiddleware",
        "NodeAuthMiddleware",
        "FleetEventLogMiddleware",
    }
