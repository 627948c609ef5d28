"""The most memory that whole SuperLink and ServerApp processes take while 3, 8, 16 and 64 sites send updates.

The SuperLink is the coordinator's own process, with TLS and node keys; the ServerApp asks by the Grid of campaigns and
aggregates by FedAvg from the spool, with the model packed as campaigns pack it. The sites are threads of this process,
each with a key and a connection of its own, which send back what they were sent; they train nothing, and no reply is
signed, so that 64 fit on this machine.

`PYTHONPATH=. python tests/bench/bench_memory.py [--mb 50] [--sites 3 8 16]` prints megabytes and each over the first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

ROUNDS, BENCH = 3, Path(__file__).parent
app = ServerApp()


@app.main()
def main_of_serverapp(grid: Grid, context: Context) -> None:
    """A few rounds of FedAvg, without campaign and sites."""
    from fedage.common.protocol.messages import pack, unpack
    from fedage.server.campaign.strategies import FedAvg, RoundStart, Spool, Update
    from fedage.server.superlink.grid import Failure, PollingGrid

    config, prompt = context.run_config, PollingGrid(grid)
    out = Path(str(config["out"]))
    strategy = FedAvg(Spool(out / "spool"))
    weights: dict[str, Any] = {
        f"layer-{number}": np.full(int(config["values"]) // 20, number, np.float32) for number in range(20)
    }
    while len(nodes := prompt.get_node_ids()) < int(config["nodes"]):
        time.sleep(0.1)
    for number in range(1, ROUNDS + 1):
        strategy.configure(RoundStart(number=number, weights=weights, sites=()))
        content = RecordDict({"w": ArrayRecord({"a": Array(pack(weights))})})

        def take(node: int, reply: Message | Failure) -> None:
            assert isinstance(reply, Message), reply
            change = unpack(reply.content.array_records["w"]["a"].numpy())
            strategy.accept(Update(site=str(node), change=change, n=10))

        prompt.exchange([Message(content, node, "train") for node in nodes], deadline_s=900, on_reply=take, keep=False)
        weights = strategy.finish().weights
    (out / "serverapp.json").write_text(json.dumps({"mb": peak_mb(os.getpid())}))


def peak_mb(pid: int) -> float:
    """The most memory that a process has had so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def site(home: Any, keys: Any, over: threading.Event) -> None:
    """Send back what comes, until it is over."""
    from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, iterate_object_tree
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
    from flwr.supernode.fleet_http_connection import http_request_response

    from fedage.deploy.machine.parts import pull_parts, push_parts

    address, certificate = f"localhost:{home.config.port}", home.ca_certificate.read_bytes()
    with http_request_response(address, False, certificate, keys) as made:
        _node, receive, send, _get_run, _get_fab, pull, push, confirm = made
        while not over.is_set():
            if (received := receive()) is None:
                time.sleep(0.3)
                continue
            announced, tree = received
            run = announced.metadata.run_id
            parts = [part.object_id for part in iterate_object_tree(tree)]
            contents = pull_parts(parts, lambda name, run=run: pull(run, name))
            confirm(run, tree.object_id)
            message: Any = inflate_object_from_contents(tree.object_id, contents)
            message.metadata.__dict__["_message_id"] = tree.object_id
            reply = Message(message.content, reply_to=message)
            del message, contents
            reply.metadata.__dict__["_message_id"] = reply.object_id
            missing, session = send(reply, get_object_tree(reply), 0.0)
            found = {name: part for name, part in get_all_nested_objects(reply).items() if name in missing}
            push_parts(
                ((name, part.deflate()) for name, part in found.items()),
                lambda name, content, run=run, session=session: push(run, session, name, content),
            )


def measure(folder: Path, *, sites: int, values: int) -> tuple[float, float]:
    """Megabytes of the SuperLink and of the ServerApp."""
    from cryptography.hazmat.primitives import serialization
    from flwr.supercore.primitives.asymmetric import generate_key_pairs

    from fedage.deploy.machine.processes import free_port
    from fedage.server.superlink.home import init_home
    from fedage.server.superlink.superlink import SuperLink, register_node, submit

    home, over, threads = init_home(folder / "c", hosts=("localhost",), port=free_port()), threading.Event(), []
    with SuperLink(home) as link:
        for number in range(sites):
            keys = generate_key_pairs()
            public = folder / f"{number}.pub"
            form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
            public.write_bytes(keys[1].public_bytes(*form))
            register_node(home, public, f"site-{number}")
            threads.append(threading.Thread(target=site, args=(home, keys, over), daemon=True))
            threads[-1].start()
        submit(
            home,
            campaign_text="",
            run_name="memory",
            extra_config={"out": str(folder), "nodes": sites, "values": values},
            server_app="bench_memory:app",
        )
        out = folder / "serverapp.json"
        deadline = time.monotonic() + 3000
        while not (out.is_file() and out.read_text()):
            if time.monotonic() > deadline:
                sys.exit(link.log.read_text()[-3000:])
            time.sleep(0.2)
        assert link._link.family is not None
        found = peak_mb(link._link.family.process.pid), float(json.loads(out.read_text())["mb"])
        over.set()
        for thread in threads:
            thread.join(30)
    return found


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=float, default=50.0)
    parser.add_argument("--sites", type=int, nargs="+", default=[3, 8, 16])
    options = parser.parse_args()
    paths = [str(BENCH), str(BENCH.parent.parent), os.environ.get("PYTHONPATH", "")]
    os.environ.update(PYTHONPATH=os.pathsep.join(paths), OMP_NUM_THREADS="1")
    found = {}
    for sites in options.sites:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            found[sites] = measure(Path(folder), sites=sites, values=int(options.mb * 1e6 / 4))
        link, server = found[sites]
        first = found[options.sites[0]]
        ratios = f"{link / first[0]:.2f} and {server / first[1]:.2f} of the first"
        print(
            f"{sites} sites, {options.mb:g} MB: SuperLink {link:.0f} MB, ServerApp {server:.0f} MB; {ratios}",
            flush=True,
        )
    print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
