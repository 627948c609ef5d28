"""What the agents of the agent's process tests run: trainings that end when told to."""

import os
import threading
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedage.client.site.cancel import stop_if_cancelled

app = ClientApp()
computing = 0
go = threading.Event()


def said(message: Message, context: Context, **more: int) -> Message:
    site = Path(str(context.node_config["site-home"])).name
    return Message(RecordDict({"said": ConfigRecord({"site": site, "pid": os.getpid(), **more})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    global computing
    home = Path(str(context.node_config["site-home"]))
    computing += 1
    go.clear()
    (home / "training").touch()
    try:
        while not go.wait(0.02):
            stop_if_cancelled()
        return said(message, context)
    finally:
        computing -= 1
        (home / "stopped").write_text(repr(time.monotonic()))


@app.query("ask")
def ask(message: Message, context: Context) -> Message:
    return said(message, context, computing=computing)


@app.query("go")
def let_go(message: Message, context: Context) -> Message:
    go.set()
    return said(message, context)
