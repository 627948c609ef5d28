"""What a SuperNode does with every message at a hospital: it goes to the site's agent, the reply comes back.

Stateless, without torch, pandas or a database, and with no image in reach: whatever a coordinator ships runs here, and
here is nothing to take.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from fedage.client.node import wire

AGENT_SOCKET = "agent-socket"
CONNECT_S = 30.0
"""An agent that was just restarted imports torch first."""
_CANCEL_S = 2.0


class SiteApp(ClientApp):
    """One entry point for both worlds.

    It relays where the node configuration names an agent's socket, and handles in process where it does not
    (simulation). Mods and handlers belong to the app behind it.
    """

    def __call__(self, message: Message, context: Context) -> Message:
        """Answer a message of any type."""
        socket = context.node_config.get(AGENT_SOCKET)
        if isinstance(socket, str) and socket:
            return relay(message, socket=socket)
        from fedage.client.inbox import handlers  # heavy: never beside a relay

        return handlers.app(message, context)


def relay(
    message: Message, *, socket: str, connect_s: float = CONNECT_S, withdrawn: Future[None] | None = None
) -> Message:
    """Hand a message to the agent behind `socket` and return its reply, or an error that says only what kind.

    The agent is cancelled when this process ends early, because its stream ends then, and once `withdrawn` is done.
    """
    channel = grpc.insecure_channel(f"unix:{socket}", options=wire.GRPC_OPTIONS)
    try:
        if not _connected(channel, timeout_s=min(connect_s, message.metadata.ttl)):
            return error_reply(message, "AgentUnavailable")
        answer = _converse(channel, message, withdrawn)
    except grpc.RpcError as error:
        return error_reply(message, _reason(error))
    except wire.WireError:
        return error_reply(message, "AgentReplyMalformed")
    finally:
        channel.close()
    return _reply(answer.error if answer.has_error() else answer.content, to=message)


def _connected(channel: grpc.Channel, *, timeout_s: float) -> bool:
    """Wait for the agent. gRPC's own future waits by a clock that may be set while it does."""
    ready = threading.Event()

    def look(state: grpc.ChannelConnectivity) -> None:
        if state is grpc.ChannelConnectivity.READY:
            ready.set()

    channel.subscribe(look, try_to_connect=True)
    try:
        return ready.wait(timeout_s)
    finally:
        channel.unsubscribe(look)


def _converse(channel: grpc.Channel, message: Message, withdrawn: Future[None] | None) -> Message:
    handle: Callable[..., Any] = channel.stream_stream(f"/{wire.SERVICE}/{wire.HANDLE}")
    # Counted from now: the coordinator's clock need not agree with this one.
    call = handle(wire.encode(message), timeout=message.metadata.ttl)
    if withdrawn is not None:
        withdrawn.add_done_callback(lambda _done: call.cancel())
    try:
        return wire.decode(call)
    except BaseException:
        # Flower stops a task by an exception in this thread (SystemExit included); the agent must not go on alone.
        call.cancel()
        _cancel(channel, message.metadata.message_id)
        raise


def _cancel(channel: grpc.Channel, message_id: str) -> None:
    cancel: Callable[..., bytes] = channel.unary_unary(f"/{wire.SERVICE}/{wire.CANCEL}")
    try:
        cancel(message_id.encode(), timeout=_CANCEL_S)
    except grpc.RpcError:
        return  # it is gone, or busy; the end of the stream tells it as well


def _reason(error: grpc.RpcError) -> str:
    code = error.code()
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "AgentTimeout"
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return "MessageRefused"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "AgentBusy"
    if code is grpc.StatusCode.CANCELLED:
        return "Withdrawn"
    return "AgentUnavailable"


def error_reply(message: Message, reason: str) -> Message:
    """A reply that says only what kind of error it was."""
    return _reply(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), to=message)


def _reply(content: RecordDict | Error, *, to: Message) -> Message:
    """A reply with the addresses Flower expects of this process, dated by the coordinator's clock.

    Flower dates a reply by this machine's clock and throws it away when that is ahead by more than the time to live.
    """
    reply = Message(content, reply_to=to)
    reply.metadata.created_at = to.metadata.created_at
    reply.metadata.ttl = to.metadata.ttl
    return reply
