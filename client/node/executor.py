"""Takes a SuperNode's tasks in one process that stays, instead of a fresh Flower process for every message.

The SuperNode runs with `--isolation process` and waits for whoever shares its secret to take tasks. This takes them
with Flower's own runtime client and hands every message to the relay. Nothing of the app package that came with a run
is unpacked or imported: no shipped code runs at this hospital at all.

The runtime client is not a public interface of Flower; `tests/client/agent/test_flower_contract.py` holds what is used
of it. `executor = "per-message"` in `site.toml` is the public way back. Flower's own process then hears at its next
heartbeat, up to half a minute later, that a message is not wanted any more.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode, SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from fedage.client.node.concurrent_fetcher import MOST
from fedage.client.node.flower_waits import shorten_pulls
from fedage.client.node.relay import relay
from fedage.deploy.machine.processes import end_with_parent

ACQUIRE = "/flwr.proto.Runtime/AcquireTask"

_POLL_S = 0.5
"""Longest wait between two looks for tasks; the SuperNode says at once when it has one."""
_STARTING_S = 60.0
_HEARTBEAT_S = 1.0
"""A task that is withdrawn is noticed this soon; Flower's own heartbeat takes some twenty seconds."""

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Take tasks until the SuperNode that started this is gone."""
    parser = argparse.ArgumentParser(description="Relay a SuperNode's messages to the site's agent.")
    parser.add_argument("--port", type=int, required=True, help="port of the SuperNode's runtime interface")
    parser.add_argument("--socket", required=True, help="the agent's socket")
    parser.add_argument("--secret", type=Path, required=True, help="file with the secret shared with the SuperNode")
    options = parser.parse_args(arguments)
    # Flower's runtime client interrupts the main thread when a task was withdrawn, as it expects a process for each
    # task. Here that would end the other tasks too, and the node with them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    shorten_pulls()
    there_is_one = threading.Event()
    threading.Thread(target=_listen, args=(there_is_one,), daemon=True, name="listen").start()
    serve(
        f"127.0.0.1:{options.port}",
        socket=options.socket,
        secret=options.secret.read_bytes(),
        there_is_one=there_is_one,
    )


def _listen(there_is_one: threading.Event) -> None:
    """The SuperNode writes a byte for each message it has fetched."""
    while os.read(sys.stdin.fileno(), 64):
        there_is_one.set()


def serve(address: str, *, socket: str, secret: bytes, there_is_one: threading.Event) -> None:
    """Take tasks, several at a time; returns when the SuperNode does not answer any more.

    Parameters
    ----------
    there_is_one
        Set when there may be a task; without it a look is taken now and then.
    """
    client = _client(address, SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods={ACQUIRE}))
    wanted = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    began = time.monotonic()
    answered = False
    free = threading.BoundedSemaphore(MOST)
    workers = ThreadPoolExecutor(MOST, thread_name_prefix="task")
    while True:
        free.acquire()
        there_is_one.clear()
        try:
            offered = client.AcquireTask(wanted)
            answered = True
        except httpx.TransportError:
            if answered or time.monotonic() - began > _STARTING_S:
                workers.shutdown(wait=False, cancel_futures=True)
                return
            offered = None
        if offered is not None and offered.HasField("task") and offered.token:
            done = workers.submit(work, address, offered.token, socket=socket)
            done.add_done_callback(lambda _done: free.release())
        else:
            free.release()
            there_is_one.wait(_POLL_S)


def work(address: str, token: str, *, socket: str) -> None:
    """One task: its message to the agent, the reply to the SuperNode; withdrawn from the agent if the node does."""
    client = _client(address, RuntimeTokenHttpInterceptor(token))
    over, withdrawn = threading.Event(), Future[None]()
    heartbeat = threading.Thread(target=_beat, args=(client, over, withdrawn), daemon=True, name="heartbeat")
    message: Message | None = None
    context: Context | None = None
    sub_status, details = SubStatus.FAILED, "the relay failed"
    heartbeat.start()
    try:
        message, context, _run, _fab = pull_task_input(client)
        push_message(client, relay(message, socket=socket, withdrawn=withdrawn), context)
        sub_status, details = SubStatus.COMPLETED, ""
    except Exception as error:  # noqa: BLE001 - the node must live on, and learns the type only
        logger.error("a task failed: %s", type(error).__name__)
        if message is not None and context is not None and not withdrawn.done():
            reason = Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=type(error).__name__)
            push_message(client, Message(reason, reply_to=message), context)
    finally:
        over.set()
        heartbeat.join()
        if withdrawn.done():
            logger.warning("a task was withdrawn")
        else:
            # The context goes back without the state: the agent keeps that.
            push_task_output(client, None, sub_status, details)
        client.close()


def _beat(client: RuntimeHttpClient, over: threading.Event, withdrawn: Future[None]) -> None:
    """Tell the SuperNode that the task is worked on, until it is over or not wanted any more."""
    while not over.wait(_HEARTBEAT_S):
        try:
            wanted = client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success
        except httpx.HTTPStatusError as refused:
            wanted = refused.response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
        except httpx.TransportError:
            continue  # the SuperNode is gone or restarts; whoever takes tasks notices
        if not wanted:
            withdrawn.set_result(None)
            return


def _client(address: str, interceptor: RuntimeTokenHttpInterceptor | SuperExecAuthHttpInterceptor) -> RuntimeHttpClient:
    return RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,  # loopback, within this machine
        root_certificates=None,
        interceptors=[RuntimeVersionHttpInterceptor(component_name="SuperExec"), interceptor],
        retry_invoker=make_simple_http_retry_invoker(),
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    main()
    # A relay still under way must not keep this process, whose SuperNode is gone; the agent sees its stream end.
    os._exit(0)
