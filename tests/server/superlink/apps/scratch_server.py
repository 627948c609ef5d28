"""The ServerApp of the process tests: does what its run configuration says and writes down what came back."""

import json
import os
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedage.server.superlink.grid import Failure, PollingGrid

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config = context.run_config
    prompt = PollingGrid(grid)
    expected = int(config["nodes"])
    while len(prompt.get_node_ids()) < expected:
        time.sleep(0.1)
    found = {
        "nodes": len(prompt.get_node_ids()),
        "config": dict(config),
        "coordinator_home": os.environ.get("FEDAGE_COORDINATOR_HOME"),
        "steps": [],
    }
    for step in str(config["steps"]).split():
        kind, _, deadline_s = step.partition(":")
        found["steps"].append(one(prompt, kind, deadline_s=float(deadline_s or 60)))
    out = Path(os.environ["SCRATCH_OUT"]) / f"{config['run-name']}.json"
    out.with_suffix(".tmp").write_text(json.dumps(found))
    out.with_suffix(".tmp").rename(out)


def one(prompt: PollingGrid, kind: str, *, deadline_s: float) -> dict[str, object]:
    content, expected = RecordDict(), None
    if kind == "big":
        sent = np.random.default_rng(1).normal(size=3_750_000)  # 30 MB
        content, expected, kind = RecordDict({"w": ArrayRecord({"a": Array(sent)})}), sent + 1, "train"
    began = time.monotonic()
    arrived = []
    messages = [Message(content, node, kind) for node in prompt.get_node_ids()]
    replies = prompt.exchange(
        messages, deadline_s=deadline_s, on_reply=lambda *_: arrived.append(time.monotonic() - began)
    )
    told = []
    for reply in replies.values():
        if isinstance(reply, Failure):
            told.append({"code": reply.code, "reason": reply.reason})
            continue
        said = dict(reply.content.config_records.get("said", {}))
        if expected is not None:
            said["same"] = bool(np.array_equal(reply.content.array_records["w"]["a"].numpy(), expected))
        told.append(said)
    return {"seconds": time.monotonic() - began, "arrived": arrived, "told": told}
