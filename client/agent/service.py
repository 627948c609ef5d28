"""The agent's gRPC service on a unix socket: `Handle`, `Cancel` and `Status`, bytes in and out, and standard health.

The relay on the other end is treated as hostile: sizes are bounded, of one message and of all together, nothing of its
node or run configuration is used, and what it may learn of a failure is the name of an exception's type.
"""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from fedage.client.agent.turns import Turns
from fedage.client.node import wire
from fedage.client.site.cancel import Cancellation, cancellable
from fedage.client.site.durable import DISK_FULL, StoreUnavailable
from fedage.common.errors import FedAgeError
from fedage.common.version import __version__

logger = logging.getLogger(__name__)

App = Callable[[Message, Context], Message]

MAX_HANDLED = 8
"""Messages handled or waiting at a time; more are turned away, so that cancelling and health always find a thread."""
PATIENCE_S = 30.0
_SLOWEST_BYTES_PER_S = 10_000_000
_MORE_THREADS = 4
_MAX_RPCS = 64
_KEPT_RUNS = 16


class Busy(Exception):
    """There is no room for another message now."""


class Agent:
    """Runs the real ClientApp and keeps each run's `Context.state`.

    Trainings and evaluations take turns, questions are answered beside them.

    Parameters
    ----------
    app
        The ClientApp object (or anything called like one).
    site_home
        Put into the node configuration as `site-home`.
    max_bytes
        Largest message accepted; all messages under way together may have twice as many.
    computes
        What networks are computed on, in a sentence for `fedage site status`.
    patience_s
        How long a relay may take to begin sending, beside what the bytes themselves take at the slowest rate allowed;
        the same for taking the reply. It is on this machine, and has the whole message.
    """

    def __init__(
        self,
        app: App,
        *,
        site_home: Path,
        max_bytes: int = wire.MAX_MESSAGE_BYTES,
        computes: str = "",
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._app = app
        self._computes = computes
        self._site_home = site_home
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._room = _Room(messages=MAX_HANDLED, bytes_=2 * max_bytes)
        self._turns = Turns()
        self._states: OrderedDict[int, RecordDict] = OrderedDict()
        self._states_lock = threading.Lock()
        self._began = time.time()
        self._stopping = False
        self._failed: dict[str, str | float] | None = None

    def handle(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """`Handle`: a message's frames in, the reply's frames out."""
        if self._stopping:
            context.abort(grpc.StatusCode.UNAVAILABLE, "the agent is stopping")
        place, patience = _Place(self._room), _Patience(context, self._patience_s)
        try:
            place.enter()
            patience.begin(bytes_=0)

            def claim(count: int) -> None:
                place.claim(count)
                patience.begin(bytes_=count)

            message = wire.decode(frames, max_bytes=self._max_bytes, claim=claim)
            patience.end()
            cancellation = Cancellation(lifetime_s=message.metadata.ttl)
            if not context.add_callback(cancellation.cancel):
                cancellation.cancel()
            reply = self.answer(message, cancellation)
            patience.begin(bytes_=self._max_bytes)
            yield from wire.encode(reply)
        except wire.WireError as error:
            logger.warning("refused a message: %s", error)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except Busy:
            logger.warning("turned a message away: too much is under way")
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much is under way")
        finally:
            patience.end()
            place.leave()

    def cancel(self, message_id: bytes, _context: grpc.ServicerContext) -> bytes:
        """`Cancel`: ask the handler of this message to stop. Answers 1 if there was one."""
        return b"1" if self._turns.cancel(message_id.decode(errors="replace")) else b"0"

    def status(self, _nothing: bytes, _context: grpc.ServicerContext) -> bytes:
        """`Status`: version, since when, which kinds of message are handled, and whether the last one failed.

        Nothing of their content.
        """
        handled = [
            {"kind": work.kind[:80], "waits": work.waits, "seconds": round(time.monotonic() - work.since, 1)}
            for work in self._turns.works()
        ]
        state = {"version": __version__, "since": self._began, "handled": handled, "failed": self._failed}
        state |= {"computes": self._computes} if self._computes else {}
        return json.dumps(state).encode()

    def cancel_all(self) -> None:
        """Ask every handler to stop."""
        self._turns.cancel_all()

    def stop(self, *, timeout_s: float) -> bool:
        """Take nothing more, ask every handler to stop, and wait for them; False if one goes on regardless."""
        self._stopping = True
        self._turns.cancel_all()
        return self._turns.idle(timeout_s=timeout_s)

    def answer(self, message: Message, cancellation: Cancellation) -> Message:
        """The app's reply, or an error that names the exception's type, or why it was stopped, and nothing else."""
        kind = message.metadata.message_type
        try:
            with self._turns.turn(message, cancellation), cancellable(cancellation):
                logger.info("handling %s", kind)
                reply = self._app(message, self._context(message))
                if not isinstance(reply, Message):
                    raise TypeError("a handler returned no message")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, its text stays here
            logger.error("%s failed: %s", kind, where(error))
            reason = cancellation.reason if cancellation.cancelled else kind_of(error)
            self._failed = {"kind": kind[:80], "reason": reason, "at": time.time()}
            return Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)
        logger.info("answered %s", kind)
        self._failed = None
        return reply

    def _context(self, message: Message) -> Context:
        run_id = message.metadata.run_id
        with self._states_lock:
            state = self._states.setdefault(run_id, RecordDict())
            self._states.move_to_end(run_id)
            while len(self._states) > _KEPT_RUNS:
                self._states.popitem(last=False)
        return Context(
            run_id=run_id,
            node_id=message.metadata.dst_node_id,
            node_config={"site-home": str(self._site_home)},
            state=state,
            run_config={},
        )


class _Room:
    """How many messages and bytes may be under way."""

    def __init__(self, *, messages: int, bytes_: int) -> None:
        self.lock = threading.Lock()
        self.messages = messages
        self.bytes = bytes_


class _Place:
    """One message's share of the room."""

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._messages = 0
        self._bytes = 0

    def enter(self) -> None:
        """Take a message's place, or raise `Busy`."""
        with self._room.lock:
            if not self._room.messages:
                raise Busy
            self._room.messages -= 1
            self._messages = 1

    def claim(self, count: int) -> None:
        """Take room for so many bytes, or raise `Busy`."""
        with self._room.lock:
            if count > self._room.bytes:
                raise Busy
            self._room.bytes -= count
            self._bytes = count

    def leave(self) -> None:
        """Give everything back."""
        with self._room.lock:
            self._room.messages += self._messages
            self._room.bytes += self._bytes
            self._messages = self._bytes = 0


class _Patience:
    """Ends a call whose relay neither sends nor takes: it would hold a place that others wait for.

    A drip of frames does not help it: a time is set for all the bytes together.
    """

    def __init__(self, context: grpc.ServicerContext, patience_s: float) -> None:
        self._context = context
        self._patience_s = patience_s
        self._timer: threading.Timer | None = None

    def begin(self, *, bytes_: int) -> None:
        """Wait from now for so many bytes to pass."""
        self.end()
        self._timer = threading.Timer(self._patience_s + bytes_ / _SLOWEST_BYTES_PER_S, self._lose)
        self._timer.daemon = True
        self._timer.start()

    def end(self) -> None:
        """What was waited for has passed."""
        if self._timer is not None:
            self._timer.cancel()

    def _lose(self) -> None:
        logger.warning("ended a stream that neither sent nor took anything for too long")
        self._context.cancel()


def kind_of(error: BaseException) -> str:
    """What the coordinator is told of an exception: its type, or that the disk is full, whichever file said so."""
    full = isinstance(error, StoreUnavailable) and error.disk_full
    if full or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)):
        return DISK_FULL
    return type(error).__name__


def where(error: BaseException) -> str:
    """An exception as its type and its places in the code: no text and no values, which may hold patient data.

    Only a `FedAgeError` is quoted: its message is written for a person and holds none. This goes to the site's own log.
    """
    places = []
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}:{code.co_name}")
        trace = trace.tb_next
    text = f": {error}" if isinstance(error, FedAgeError) else ""
    return " < ".join([type(error).__name__ + text, *reversed(places)])


@dataclass(frozen=True)
class Serving:
    """A service that runs."""

    agent: Agent
    server: grpc.Server
    health: health.HealthServicer

    def stop(self, *, grace: float) -> threading.Event:
        """Say so in health, end what is handled, then the server. The event is set when all is over."""
        self.health.enter_graceful_shutdown()
        self.agent.stop(timeout_s=grace)
        over: threading.Event = self.server.stop(grace=grace)
        return over


def serve(agent: Agent, *, socket: Path, shared: bool = False) -> Serving:
    """Start the service on a unix socket. The caller stops it.

    Parameters
    ----------
    agent
        What answers.
    socket
        Where it listens; its folder is made for its owner alone if it is not there.
    shared
        Whether the socket's group may connect too; otherwise its owner alone.

    Raises
    ------
    OSError
        If the socket cannot be bound.
    """
    handlers = grpc.method_handlers_generic_handler(
        wire.SERVICE,
        {
            wire.HANDLE: grpc.stream_stream_rpc_method_handler(agent.handle),
            wire.CANCEL: grpc.unary_unary_rpc_method_handler(agent.cancel),
            wire.STATUS: grpc.unary_unary_rpc_method_handler(agent.status),
        },
    )
    server = grpc.server(
        ThreadPoolExecutor(max_workers=MAX_HANDLED + _MORE_THREADS, thread_name_prefix="agent"),
        options=wire.GRPC_OPTIONS,
        maximum_concurrent_rpcs=_MAX_RPCS,
    )
    server.add_generic_rpc_handlers((handlers,))
    health_service = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError:
        raise OSError(f"cannot listen on {socket}: choose a site home with a shorter path, on a local disk") from None
    server.start()
    socket.chmod(0o660 if shared else 0o600)
    for name in ("", wire.SERVICE):
        health_service.set(name, health_pb2.HealthCheckResponse.SERVING)
    return Serving(agent, server, health_service)
