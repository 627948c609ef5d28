"""The agent's gRPC service on a unix socket: `Handle` and `Cancel`, bytes in and out.

The relay on the other end is treated as hostile: sizes are bounded, nothing of its node or run configuration is used,
and what it may learn of a failure is the name of an exception's type.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from fedage.client.agent import wire
from fedage.client.agent.cancel import Cancellation, Cancelled, cancellable
from fedage.common.errors import FedAgeError

logger = logging.getLogger(__name__)

App = Callable[[Message, Context], Message]

_STREAMS = 4
_KEPT_RUNS = 16
_LOCK_POLL_S = 0.2


class Agent:
    """Runs the real ClientApp, one message at a time, and keeps each run's `Context.state`.

    Parameters
    ----------
    app
        The ClientApp object (or anything called like one).
    site_home
        Put into the node configuration as `site-home`.
    max_bytes
        Largest message accepted.
    """

    def __init__(self, app: App, *, site_home: Path, max_bytes: int = wire.MAX_MESSAGE_BYTES) -> None:
        self._app = app
        self._site_home = site_home
        self._max_bytes = max_bytes
        self._running: dict[str, Cancellation] = {}
        self._states: OrderedDict[int, RecordDict] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def handle(self, frames: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """`Handle`: a message's frames in, the reply's frames out."""
        try:
            message = wire.decode(frames, max_bytes=self._max_bytes)
        except wire.WireError as error:
            logger.warning("refused a message: %s", error)
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        cancellation = Cancellation(lifetime_s=message.metadata.ttl)
        if not context.add_callback(cancellation.cancel):
            cancellation.cancel()
        yield from wire.encode(self.answer(message, cancellation))

    def cancel(self, message_id: bytes, _context: grpc.ServicerContext) -> bytes:
        """`Cancel`: ask the handler of this message to stop. Answers 1 if it was running."""
        running = self._running.get(message_id.decode(errors="replace"))
        if running is None:
            return b"0"
        running.cancel()
        return b"1"

    def cancel_all(self) -> None:
        """Ask every handler to stop."""
        for cancellation in list(self._running.values()):
            cancellation.cancel()

    def answer(self, message: Message, cancellation: Cancellation) -> Message:
        """The app's reply, or an error that names the exception's type and nothing else."""
        kind, message_id = message.metadata.message_type, message.metadata.message_id
        self._running[message_id] = cancellation
        try:
            with self._turn(cancellation), cancellable(cancellation):
                logger.info("handling %s", kind)
                reply = self._app(message, self._context(message))
                if not isinstance(reply, Message):
                    raise TypeError("a handler returned no message")
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, its text stays here
            logger.error("%s failed: %s", kind, where(error))
            return Message(
                Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=type(error).__name__), reply_to=message
            )
        finally:
            self._running.pop(message_id, None)
        logger.info("answered %s", kind)
        return reply

    def _context(self, message: Message) -> Context:
        run_id = message.metadata.run_id
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

    def _turn(self, cancellation: Cancellation) -> _Turn:
        return _Turn(self._one_at_a_time, cancellation)


class _Turn:
    """Waits for the lock, but not longer than somebody waits for the answer."""

    def __init__(self, lock: threading.Lock, cancellation: Cancellation) -> None:
        self._lock = lock
        self._cancellation = cancellation

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=_LOCK_POLL_S):
            if self._cancellation.cancelled:
                raise Cancelled

    def __exit__(self, *_: object) -> None:
        self._lock.release()


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
    said = f": {error}" if isinstance(error, FedAgeError) else ""
    return " < ".join([type(error).__name__ + said, *reversed(places)])


def serve(agent: Agent, *, socket: Path) -> grpc.Server:
    """Start the service on a unix socket only its owner may open. The caller stops it.

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
        },
    )
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_STREAMS, thread_name_prefix="agent"),
        options=wire.GRPC_OPTIONS,
        maximum_concurrent_rpcs=_STREAMS,
    )
    server.add_generic_rpc_handlers((handlers,))
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError:
        raise OSError(f"cannot listen on {socket}: choose a site home with a shorter path, on a local disk") from None
    server.start()
    socket.chmod(0o600)
    return server
