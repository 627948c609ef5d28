"""The ServerApp of the agent's process tests: runs the scenario that is named, and writes what came back."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    deadline = time.monotonic() + 60
    while len(nodes := sorted(grid.get_node_ids())) < int(config["nodes"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    told = SCENARIOS[str(config["scenario"])](grid, nodes)
    out = Path(os.environ["SCENARIO_OUT"]) / f"{config['name']}.json"
    out.with_suffix(".tmp").write_text(json.dumps(told))
    out.with_suffix(".tmp").rename(out)


def push(grid: Grid, nodes: list[int], kind: str, *, ttl: float = 60.0) -> list[str]:
    return list(grid.push_messages([Message(RecordDict(), node, kind, ttl=ttl) for node in nodes]))


def pull(grid: Grid, ids: list[str], *, timeout_s: float = 60.0) -> list[dict[str, object]]:
    deadline, told = time.monotonic() + timeout_s, []
    left = set(ids)
    while left and time.monotonic() < deadline:
        for reply in grid.pull_messages(list(left)):
            left.discard(reply.metadata.reply_to_message_id)
            said = {"error": reply.error.reason} if reply.has_error() else dict(reply.content["said"])
            told.append({**said, "node": str(reply.metadata.src_node_id)})
        time.sleep(0.3)
    return told


def until_all_train(grid: Grid, nodes: list[int], *, timeout_s: float = 45.0) -> None:
    """A busy machine takes its time to start Flower's process for a message."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        asked = pull(grid, push(grid, nodes, "query.ask"))
        if len(asked) == len(nodes) and all(said.get("computing") for said in asked):
            return
        time.sleep(0.2)


def beside(grid: Grid, nodes: list[int]) -> object:
    """An analysis while a training runs; the training ends only when a message says so."""
    trains = push(grid, nodes, "train")
    until_all_train(grid, nodes)
    began = time.monotonic()
    asked = pull(grid, push(grid, nodes, "query.ask"))
    seconds = time.monotonic() - began
    early = pull(grid, trains, timeout_s=0.5)
    pull(grid, push(grid, nodes, "query.go"))
    return {"asked": asked, "seconds": seconds, "early": early, "trained": pull(grid, trains)}


def superseded(grid: Grid, nodes: list[int]) -> object:
    """A second training of the same run before the first has ended."""
    first = push(grid, nodes, "train")
    until_all_train(grid, nodes)
    began = time.monotonic()
    second = push(grid, nodes, "train")
    gone = pull(grid, first, timeout_s=40)
    seconds = time.monotonic() - began
    time.sleep(1.0)
    pull(grid, push(grid, nodes, "query.go"))
    return {"first": gone, "seconds": seconds, "second": pull(grid, second)}


def leaves(grid: Grid, nodes: list[int]) -> object:
    """Trainings that the run does not wait for: it ends."""
    push(grid, nodes, "train", ttl=600.0)
    until_all_train(grid, nodes)
    time.sleep(8.0)
    return {}


def waits(grid: Grid, nodes: list[int]) -> object:
    """One training, answered or not, and one more message to see who is back."""
    trained = pull(grid, push(grid, nodes, "train", ttl=20.0), timeout_s=60.0)
    return {"trained": trained, "asked": pull(grid, push(grid, nodes, "query.ask"), timeout_s=60.0)}


def loot(grid: Grid, nodes: list[int]) -> object:
    """What shipped code gets hold of."""
    return {"told": pull(grid, push(grid, nodes, "query.loot"))}


SCENARIOS: dict[str, Callable[[Grid, list[int]], object]] = {
    "beside": beside,
    "superseded": superseded,
    "leaves": leaves,
    "waits": waits,
    "loot": loot,
}
