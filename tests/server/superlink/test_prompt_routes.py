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
from flwr.proto.message_pb2 import ObjectTree, PullObjectRequest, PullObjectResponse, PushObjectRequest
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER, TASK_TOKEN_HEADER
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import get_object_id
from flwr.supercore.primitives.asymmetric import public_key_to_bytes, sign_message
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager

from fedage.deploy.machine.parts import HOLD_HEADER, joined, name_of, separated
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

    def call(
        self, path: str, message: Any, headers: dict[str, str], *, waits: bool = False, **scope: Any
    ) -> bytes | None:
        """The body of a prompt answer; None if the app was to answer. Who asks `waits` and does not go meanwhile."""
        sent: list[Any] = []
        body = message.SerializeToString()
        events = [
            {"type": "http.request", "body": body[:3], "more_body": True},
            {"type": "http.request", "body": body[3:], "more_body": False},
        ]

        async def receive() -> Any:
            if waits and not events:
                await asyncio.sleep(60)
            return events.pop(0)

        async def send(event: Any) -> None:
            sent.append(event)

        fields = {"content-type": PROTOBUF_MEDIA_TYPE, **headers}
        raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
        asked = {"type": "http", "method": "POST", "path": path, "headers": raw, **scope}
        asyncio.run(self.routes(asked, receive, send))
        return b"".join(event["body"] for event in sent[1:]) if sent else None


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


CONTENTS = [b"head", b"first chunk", b"second chunk"]
IDS = [get_object_id(content) for content in CONTENTS]


class Sending(Link):
    """A link with a run that goes on, and a session in which the node sends a message of three parts."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.state.object_store.verify = False
        self.run = self.state.create_run(None, None, None, {}, "federation", None, "owner", "flwr-serverapp")
        (task,) = self.state.get_tasks()
        token = self.state.claim_task(task.task_id)
        assert token is not None
        self.state.activate_task(task.task_id)
        tree = ObjectTree(object_id=IDS[0], children=[ObjectTree(object_id=name) for name in IDS[1:]])
        self.session = self.state.start_session(self.run)
        assert set(self.state.preregister_object_tree(tree, self.session)) == set(IDS)

    def push(self, names: list[str], contents: list[bytes], *, headers: dict[str, str] | None = None) -> bytes | None:
        request = PushObjectRequest(run_id=self.run, object_id=name_of(names), session_id=self.session)
        request.object_content, request.node.node_id = joined(contents), self.node
        return self.call("/v1/fleet/push-object", request, signed() if headers is None else headers)

    def pull(self, names: list[str], **headers: str) -> PullObjectResponse | None:
        request = PullObjectRequest(run_id=self.run, object_id=name_of(names))
        request.node.node_id = self.node
        answer = self.call("/v1/fleet/pull-object", request, {**signed(), **headers})
        return PullObjectResponse.FromString(answer) if answer is not None else None


def test_parts_that_are_sent_together_are_given_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Sending(tmp_path)
    assert link.push(IDS, CONTENTS) is not None
    answer = link.pull(IDS)
    assert answer is not None
    assert list(separated(answer.object_content)) == CONTENTS
    monkeypatch.setattr(prompt_routes, "TOGETHER_BYTES", 10)
    answer = link.pull(IDS)
    assert answer is not None
    assert list(separated(answer.object_content)) == CONTENTS[:2]
    assert link.reached == []


@pytest.mark.parametrize("wrong", ["another's part", "a part less", "unsigned", "another's signature", "sent before"])
def test_of_parts_that_are_not_all_in_order_none_is_taken(tmp_path: Path, wrong: str) -> None:
    link = Sending(tmp_path)
    names, contents, headers, before = IDS, CONTENTS, signed(), list[bytes]()
    match wrong:
        case "another's part":
            names = [*IDS[:2], "f" * 64]
        case "a part less":
            contents = CONTENTS[:2]
        case "unsigned":
            headers = {}
        case "another's signature":
            headers = signed(OTHER, of=KEY)
        case _:
            before = CONTENTS[2:]
            assert link.push(IDS[2:], before) is not None
    assert link.push(names, contents, headers=headers) is None
    assert [path for path, _body in link.reached] == ["/v1/fleet/push-object"]
    assert link.push(IDS[: len(IDS) - len(before)], CONTENTS[: len(IDS) - len(before)]) is not None


def test_parts_of_which_one_is_missing_are_given_up_to_it(tmp_path: Path) -> None:
    link = Sending(tmp_path)
    assert link.pull(IDS) == PullObjectResponse(object_found=True, object_available=False)
    assert link.push(IDS[:2], CONTENTS[:2]) is not None
    answer = link.pull(IDS)
    assert answer is not None
    assert list(separated(answer.object_content)) == CONTENTS[:2]
    assert link.pull(["f" * 64, *IDS]) == PullObjectResponse(object_found=False, object_available=False)


@pytest.mark.parametrize(("held", "least_s", "most_s"), [("0.3", 0.3, 2.0), ("no number", 0, 0.25), ("-1", 0, 0.25)])
def test_a_look_that_finds_nothing_is_held_as_long_as_it_says(
    held: str, least_s: float, most_s: float, tmp_path: Path
) -> None:
    link = Link(tmp_path)
    assert link.call(PULL, pull(link.node), signed()) == b""
    began = time.monotonic()
    assert link.call(PULL, pull(link.node), {**signed(), HOLD_HEADER: held}, waits=True) == b""
    assert least_s <= time.monotonic() - began < most_s + 1


def test_nobody_holds_a_look_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert prompt_routes._HELD_AT_MOST_S <= 5
    monkeypatch.setattr(prompt_routes, "_HELD_AT_MOST_S", 0.1)
    link, began = Link(tmp_path), time.monotonic()
    assert link.call(PULL, pull(link.node), {**signed(), HOLD_HEADER: "1e9"}, waits=True) == b""
    assert time.monotonic() - began < 60


def test_a_held_look_ends_when_the_other_side_has_sent_and_gives_nothing_to_who_is_gone(tmp_path: Path) -> None:
    link = Sending(tmp_path)
    headers = {**signed(), HOLD_HEADER: "30"}
    request = PullObjectRequest(run_id=link.run, object_id=name_of(IDS))
    request.node.node_id = link.node

    async def both(*, gone: bool) -> list[Any]:
        sent: list[Any] = []
        began = asyncio.get_running_loop().time()

        async def receive() -> Any:
            if not sent and not body:
                await asyncio.sleep(0.2 if gone else 60)
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": body.pop(), "more_body": False}

        async def send(event: Any) -> None:
            sent.append(event)

        body = [request.SerializeToString()]
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        raw.append((b"content-type", PROTOBUF_MEDIA_TYPE.encode()))
        scope = {"type": "http", "method": "POST", "path": "/v1/fleet/pull-object", "headers": raw}
        looking = asyncio.ensure_future(link.routes(scope, receive, send))
        await asyncio.sleep(0.1)
        if not gone:
            with link.state.session():
                for name, content in zip(IDS, CONTENTS, strict=True):
                    assert link.state.store_object(link.run, link.session, name, content)
            link.routes.tell("/v1/runtime/")
        await looking
        assert asyncio.get_running_loop().time() - began < 25
        return sent

    prompt_routes_most, prompt_routes._HELD_AT_MOST_S = prompt_routes._HELD_AT_MOST_S, 30.0
    try:
        assert asyncio.run(both(gone=True)) == []
        sent = asyncio.run(both(gone=False))
    finally:
        prompt_routes._HELD_AT_MOST_S = prompt_routes_most
    assert (
        list(separated(PullObjectResponse.FromString(b"".join(event["body"] for event in sent[1:])).object_content))
        == CONTENTS
    )
