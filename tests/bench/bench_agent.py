"""A round with the site's resident agent, against one where the ClientApp imports torch itself.

One hospital, the same handler (a few steps of a small network on random pictures) both ways:

* resident: a relay and an agent that stay, torch imported and the network built once;
* per message: what Flower does by itself, a fresh process for every message, which imports torch and builds the
  network.

`python tests/bench/bench_agent.py` prints medians over rounds and their ratio.
Without Flower's network: what is timed is from the message at the hospital to the reply there.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.clientapp import ClientApp
from rich.console import Console
from rich.table import Table

ROUNDS = 9
WEIGHTS = 1_000_000
STEPS = 5

app = ClientApp()
_warm: dict[str, object] = {}


@app.train()
def train(message: Message, context: Context) -> Message:
    """Import torch and the network unless that is done, and take a few steps."""
    import torch

    from fedage.common.networks.resnet import ResNet18

    if "net" not in _warm:
        _warm["net"] = ResNet18(norm="group", width=16)
    net = _warm["net"]
    assert isinstance(net, torch.nn.Module)
    pictures = torch.zeros(4, 1, 64, 64)
    for _ in range(STEPS):
        net(pictures).sum().backward()
    content = ArrayRecord({"w": Array(message.content.array_records["w"]["w"].numpy() + 1)})
    return Message(RecordDict({"w": content}), reply_to=message)


def message_of(number: int) -> Message:
    """A training message with 4 MB of weights."""
    metadata = Metadata(
        run_id=1,
        message_id=f"m{number}",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=300.0,
        message_type="train",
    )
    weights = ArrayRecord({"w": Array(np.zeros(WEIGHTS, np.float32))})
    return make_message(metadata=metadata, content=RecordDict({"w": weights}))


def resident_round(number: int, *, socket: str) -> float:
    """Seconds of one message through relay and agent."""
    from fedage.client.node.relay import relay

    began = time.perf_counter()
    assert relay(message_of(number), socket=socket).has_content()
    return time.perf_counter() - began


def fresh_round(file: Path) -> float:
    """Seconds of one message in a process of its own, which gets and gives the message as a file."""
    from fedage.client.node import wire

    began = time.perf_counter()
    file.write_bytes(b"".join(wire.encode(message_of(0))))
    subprocess.run([sys.executable, __file__, "one", str(file)], check=True)
    assert file.stat().st_size > 4 * WEIGHTS
    return time.perf_counter() - began


def answer_one(file: Path) -> None:
    """What a fresh process does: imports, the app, one reply."""
    from fedage.client.node import wire

    content = file.read_bytes()
    count = int.from_bytes(content[8:12], "little")
    start = 12 + 8 * count
    frames = [content[at : at + wire.FRAME_BYTES] for at in range(start, len(content), wire.FRAME_BYTES)]
    message = wire.decode([content[:start], *frames])
    context = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})
    file.write_bytes(b"".join(wire.encode(app(message, context))))


def main() -> None:
    """Time both and print medians and the ratio."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        socket = Path(folder) / "a.sock"
        command = [sys.executable, "-m", "fedage.client.agent.main", folder, "--socket", str(socket)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        agent = subprocess.Popen([*command, "--app", "bench_agent:app"], env=environment)
        try:
            first = resident_round(0, socket=str(socket))
            resident = [resident_round(number, socket=str(socket)) for number in range(1, ROUNDS + 1)]
        finally:
            agent.terminate()
            agent.wait()
        fresh = [fresh_round(Path(folder) / "message") for _ in range(ROUNDS)]
    table = Table("a message at the hospital, 4 MB each way", "median s", "fastest", "slowest")
    for name, seconds in (("resident agent", resident), ("a process that imports torch", fresh)):
        table.add_row(name, *(f"{value:.2f}" for value in (statistics.median(seconds), min(seconds), max(seconds))))
    table.add_row("ratio of the medians", f"{statistics.median(fresh) / statistics.median(resident):.0f}", "", "")
    console = Console()
    console.print(table)
    console.print(f"the agent's very first message, with its start: {first:.1f} s; {ROUNDS} messages each")


if __name__ == "__main__":
    if sys.argv[1:2] == ["one"]:
        answer_one(Path(sys.argv[2]))
    else:
        main()
