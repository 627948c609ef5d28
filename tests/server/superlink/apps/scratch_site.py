"""What the agents of the process tests run."""

import os
import threading
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedage.client.site.cancel import should_stop

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    record = ArrayRecord({k: Array(a.numpy() + 1) for k, a in message.content.array_records.get("w", {}).items()})
    home = Path(str(context.node_config["site-home"]))
    said = ConfigRecord({"site": home.name, "pid": os.getpid(), "threads": threading.active_count()})
    return Message(RecordDict({"w": record, "said": said}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    raise LookupError("Meier, Hans, 1948")


@app.query("slow")
def slow(message: Message, context: Context) -> Message:
    home = Path(str(context.node_config["site-home"]))
    began = time.monotonic()
    while not should_stop() and time.monotonic() - began < 60:
        time.sleep(0.02)
    (home / "stopped-after").write_text(str(time.monotonic() - began))
    return Message(RecordDict({"x": ArrayRecord({"a": Array(np.zeros(1))})}), reply_to=message)
