"""The SuperLink's busiest requests, answered by Flower's own handlers without the layers in front of them.

A message is some eight objects, a request each. Each request passes nine layers of Starlette's `BaseHTTPMiddleware` and
FastAPI's dependencies with a thread each, and asks the database who sends it and whether the run goes on. That took
most of the SuperLink's time in a round of 11 MB models. For the requests named in `routes` there is one thread, and
Flower's own authentication and handler; who sends and whether the run goes on is looked up once a second. Requests that
write to the database do so one after another: SQLite lets those that meet sleep, in the end for a tenth of a second.

A request may name several parts (`deploy.machine.parts`), each of which is Flower's handler's to give or take. A look
for messages that finds none is held for as long as its sender says: until the other side has sent something.

Whatever goes otherwise than well (a refused key, an unknown object, any error) is left to Flower's whole app, which is
given the same request and answers it. `tests/server/superlink/test_prompt_routes.py` holds what is used of Flower.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from flwr.common.constant import Status
from flwr.proto.message_pb2 import PullObjectResponse, PushObjectResponse
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.dependencies.task import authenticate_task
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.superlink.routers.fleet.node_auth import authenticate_node
from flwr.superlink.servicer.fleet import fleet_handlers
from flwr.superlink.servicer.runtime import runtime_handlers
from starlette.requests import Request

from fedage.deploy.machine.parts import HOLD_HEADER, TOGETHER_BYTES, joined, names_in, separated
from fedage.server.superlink.bodies import Body

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_KNOWN_S = 1.0
"""So long at most a node that was removed, or a run that has ended, may still pass parts of messages."""
_MOST_KNOWN = 4096
_HELD_AT_MOST_S = 2.0
_LARGE_AT_A_TIME = 2
_THREADS = 16
_WRITES = frozenset({"push-object", "pull-messages", "push-messages"})


def routes() -> dict[str, Callable[[Any, Any, Any], Any]]:
    """By path, Flower's handler of a request, the state and the task (None for a node's request)."""
    fleet: dict[str, Callable[[Any, Any, Any], Any]] = {
        "push-object": lambda request, state, _task: fleet_handlers.push_object(request, state),
        "pull-object": lambda request, state, _task: fleet_handlers.pull_object(request, state),
        "pull-messages": lambda request, state, _task: fleet_handlers.pull_messages(request, state, state.object_store),
        "push-messages": lambda request, state, _task: fleet_handlers.push_messages(request, state),
        "get-run": lambda request, state, _task: fleet_handlers.get_run(request, state),
        "confirm-message-received": lambda request, state, _task: fleet_handlers.confirm_message_received(
            request, state, state.object_store
        ),
    }
    runtime: dict[str, Callable[[Any, Any, Any], Any]] = {
        "push-object": runtime_handlers.push_object,
        "pull-object": runtime_handlers.pull_object,
        "pull-messages": runtime_handlers.pull_messages,
        "push-messages": runtime_handlers.push_messages,
        "confirm-message-received": runtime_handlers.confirm_message_received,
    }
    for handlers in (fleet, runtime):
        handlers["push-object"] = _each_pushed(handlers["push-object"])
        handlers["pull-object"] = _each_pulled(handlers["pull-object"])
    return {f"{_FLEET}{name}": handler for name, handler in fleet.items()} | {
        f"{_RUNTIME}{name}": handler for name, handler in runtime.items()
    }


def _each_pulled(handler: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The same for a request that names several parts: as many as are there one after another, and not too large."""

    def pull(request: Any, state: Any, task: Any) -> Any:
        names = names_in(request.object_id)
        if names is None:
            return handler(request, state, task)
        contents: list[bytes] = []
        for name in names:
            one = SimpleNamespace(node=request.node, run_id=request.run_id, object_id=name)
            answer = handler(one, state, task)
            if not (answer.object_found and answer.object_available):
                if contents:
                    break
                return answer
            contents.append(answer.object_content)
            if sum(map(len, contents)) >= TOGETHER_BYTES:
                break
        return PullObjectResponse(object_found=True, object_available=True, object_content=joined(contents))

    return pull


def _each_pushed(handler: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """The same for a request that brings several parts: all of them in one transaction, or none."""

    def push(request: Any, state: Any, task: Any) -> Any:
        names = names_in(request.object_id)
        if names is None:
            return handler(request, state, task)
        with state.session():
            for name, content in zip(names, separated(request.object_content), strict=True):
                one = SimpleNamespace(
                    node=request.node,
                    run_id=request.run_id,
                    session_id=request.session_id,
                    object_id=name,
                    object_content=content,
                )
                if not handler(one, state, task).stored:
                    raise ValueError("a part is not wanted")  # Flower's app takes none of these, and says so
        return PushObjectResponse(stored=True)

    return push


_FLEET, _RUNTIME = "/v1/fleet/", "/v1/runtime/"
_OTHER_SIDE = {_FLEET: _RUNTIME, _RUNTIME: _FLEET}


class Remembering:
    """Flower's state; what it says of a node's key and of a run that goes on holds for a second.

    The bytes that a run has sent and received are added up and told once a second, too.
    """

    def __init__(self, state: Any) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._known: OrderedDict[Any, tuple[float, Any]] = OrderedDict()
        self._traffic: dict[int, list[int]] = {}
        self._told_at = time.monotonic()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    def get_node_id_by_public_key(self, public_key: bytes) -> int | None:
        """See `LinkState`; a key of no node is looked up each time."""
        found: int | None = self._lookup(
            ("node", public_key),
            lambda: self._state.get_node_id_by_public_key(public_key),
            keep=lambda node: node is not None,
        )
        return found

    def get_run_status(self, run_ids: set[int]) -> Any:
        """See `LinkState`; the status of a run that does not run is looked up each time."""
        return self._lookup(
            ("runs", frozenset(run_ids)),
            lambda: self._state.get_run_status(run_ids),
            keep=lambda found: all(status.status == Status.RUNNING for status in found.values()),
        )

    def store_traffic(self, run_id: int, *, bytes_sent: int, bytes_recv: int) -> None:
        """See `LinkState`; added to the run once a second, and for the last second not at all."""
        with self._lock:
            sums = self._traffic.setdefault(run_id, [0, 0])
            sums[0] += bytes_sent
            sums[1] += bytes_recv
            if time.monotonic() - self._told_at < _KNOWN_S:
                return
            told, self._traffic, self._told_at = self._traffic, {}, time.monotonic()
        for run, (sent, received) in told.items():
            self._state.store_traffic(run, bytes_sent=sent, bytes_recv=received)

    def _lookup(self, key: Any, look: Callable[[], Any], *, keep: Callable[[Any], bool]) -> Any:
        with self._lock:
            at, value = self._known.get(key, (-_KNOWN_S, None))
        if time.monotonic() - at < _KNOWN_S and value is not None:
            return value
        asked_at, value = time.monotonic(), look()
        if keep(value):
            with self._lock:
                self._known[key] = asked_at, value
                self._known.move_to_end(key)
                while len(self._known) > _MOST_KNOWN:
                    self._known.popitem(last=False)
        return value


class PromptRoutes:
    """ASGI middleware: answers the requests of `routes`, and hands on all others, and those that go wrong.

    Parameters
    ----------
    app
        Flower's.
    linkstate_factory
        Whose `state()` is the SuperLink's.
    """

    def __init__(self, app: AsgiApp, *, linkstate_factory: Any) -> None:
        self._app = app
        self._routes = routes()
        self._workers = ThreadPoolExecutor(_THREADS, thread_name_prefix="prompt")
        self._news = {side: asyncio.Event() for side in _OTHER_SIDE}
        self._writing = threading.Lock()
        # What holds a model is worked on by few threads: each has it in memory several times over meanwhile, and the
        # allocator keeps for every thread what it has used.
        self._few_workers = ThreadPoolExecutor(_LARGE_AT_A_TIME, thread_name_prefix="prompt-large")
        self._state: Any = Remembering(linkstate_factory.state())
        self._folder: Path | None = getattr(self._state.object_store, "folder", None)
        # What Flower's authentication looks for in its app.
        factory = SimpleNamespace(state=lambda: self._state)
        self._in_place_of_app = SimpleNamespace(state=SimpleNamespace(linkstate_factory=factory))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass on."""
        path = scope.get("path", "")
        if scope["type"] != "http" or scope.get("method") != "POST" or path not in self._routes:
            await self._app(scope, receive, send)
            return
        with Body(self._folder) as body:
            if await _received(receive, body):
                await self._respond(scope, receive, send, path=path, body=body)

    async def _respond(self, scope: Scope, receive: Receive, send: Send, *, path: str, body: Body) -> None:
        side, _, name = path.rpartition("/")
        try:
            answer = await self._answer_or_hold(scope, receive, path=path, body=body, side=f"{side}/")
        except ConnectionAbortedError:
            return
        if answer is None:
            await self._app(scope, _again(body.whole(), receive), send)
            return
        if name.startswith("push-"):
            self.tell(f"{side}/")
        headers = [
            (b"content-type", PROTOBUF_MEDIA_TYPE.encode()),
            (b"content-length", str(len(answer)).encode()),
        ]
        with answer:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            # Each piece waits until the line has taken those before.
            for piece in answer.pieces():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def tell(self, side: str) -> None:
        """Let the looks of the other side, which are held, look again: this one has sent something."""
        other = _OTHER_SIDE[side]
        self._news[other].set()
        self._news[other] = asyncio.Event()

    async def _answer_or_hold(self, scope: Scope, receive: Receive, *, path: str, body: Body, side: str) -> Body | None:
        """The answer; None if Flower's app is to answer. One that has nothing is held until there is.

        Raises
        ------
        ConnectionAbortedError
            If who asked has gone meanwhile: what there is then must not be given to nobody.
        """
        loop = asyncio.get_running_loop()
        until, gone = time.monotonic() + _held_s(scope), None
        workers = self._few_workers if path.endswith("-object") else self._workers
        try:
            while True:
                news = self._news[side]  # before the look, so that none is missed
                answer, nothing = await loop.run_in_executor(workers, self._answer, scope, path, body)
                left_s = until - time.monotonic()
                if not nothing or left_s <= 0:
                    return answer
                gone = gone or asyncio.ensure_future(receive())
                told = asyncio.ensure_future(news.wait())
                await asyncio.wait({gone, told}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
                if gone.done():
                    raise ConnectionAbortedError
        finally:
            if gone is not None:
                gone.cancel()

    def _answer(self, scope: Scope, path: str, body: Body) -> tuple[Body | None, bool]:
        """The answer, None if Flower's app is to answer; and whether it is that there is nothing yet."""
        try:
            request = Request({**scope, "app": self._in_place_of_app, "state": {}})
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != PROTOBUF_MEDIA_TYPE:
                return None, False
            message = PROTOBUF_REQUEST_TYPES["POST", path].FromString(body.whole())
            request.state.protobuf_request = message
            task = None
            if path.startswith(_FLEET):
                authenticate_node(request)
            else:
                task = authenticate_task(request, request.headers.get(TASK_TOKEN_HEADER), self._state)
            with self._writing if path.rpartition("/")[2] in _WRITES else contextlib.nullcontext():
                answer = self._routes[path](message, self._state, task)
            content = Body(self._folder, answer.SerializeToString())
        except Exception:  # noqa: BLE001 - Flower's app makes the same request fail in its own way
            return None, False
        if isinstance(answer, PullObjectResponse):
            return content, answer.object_found and not answer.object_available
        return content, path.endswith("/pull-messages") and not answer.messages_list


def _held_s(scope: Scope) -> float:
    """How long a request may be held, as it says itself."""
    told = Request(scope).headers.get(HOLD_HEADER, "0")
    with contextlib.suppress(ValueError):
        return min(max(0.0, float(told)), _HELD_AT_MOST_S)
    return 0.0


async def _received(receive: Receive, body: Body) -> bool:
    """Whether the whole of a request has come, into `body`; not if its sender has gone."""
    while True:
        event = await receive()
        if event["type"] != "http.request":
            return False
        body.add(event.get("body", b""))
        if not event.get("more_body", False):
            return True


def _again(body: bytes, receive: Receive) -> Receive:
    """The same body once more, then what else comes."""
    told = False

    async def once_more() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once_more
