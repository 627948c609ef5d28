"""What a hostile coordinator ships: takes what it can, and fills the agent's memory."""

import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def attempt(path: str) -> str:
    """What comes of opening a file, or listing a folder."""
    try:
        if path.endswith("/"):
            return f"listed {len(list(Path(path).iterdir()))}"
        return f"read {len(Path(path).read_bytes())}"
    except OSError as error:
        return type(error).__name__


def flood(socket: str) -> int:
    """Announce as much as may be announced on many streams, send it, and never finish."""
    frame = bytes(2 * 1024 * 1024)

    def frames() -> Iterator[bytes]:
        length = 40_000_000
        yield struct.pack("<8sIQQ", b"FEDAGE-1", 2, 100, length - 100)
        for _ in range(length // len(frame)):
            yield frame
        held.wait(3)

    import threading

    held = threading.Event()
    channel = grpc.insecure_channel(f"unix:{socket}")
    calls = [channel.stream_stream("/fedage.Agent/Handle")(frames(), timeout=15) for _ in range(30)]
    refused = 0
    for call in calls:
        try:
            list(call)
        except grpc.RpcError as error:
            refused += error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    return refused


@app.query("loot")
def loot(message: Message, context: Context) -> Message:
    paths = json.loads(str(context.run_config["targets"]))
    socket = str(context.node_config["agent-socket"])
    (Path(str(context.run_config["marks"])) / f"{os.getuid()}-{Path(socket).parts[-3]}").touch()
    found = {path: attempt(path) for path in paths}
    told = {"uid": os.getuid(), "found": json.dumps(found), "refused": flood(socket)}
    return Message(RecordDict({"said": ConfigRecord(told)}), reply_to=message)
