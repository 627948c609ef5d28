"""300 MB there and back between two real processes: the same bytes, and no more memory than a few copies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

APPS = Path(__file__).parent / "apps"

SEND = """
import hashlib, resource, sys, time
import numpy as np
from flwr.app import Array, ArrayRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from fedage.client.node.relay import relay
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
sent = np.arange(300_000_000 // 8, dtype=np.int64)
array = Array(sent)
digest = hashlib.sha256(array.data).hexdigest()
metadata = Metadata(run_id=1, message_id="m", src_node_id=1, dst_node_id=2, reply_to_message_id="", group_id="",
                    created_at=time.time(), ttl=200.0, message_type="train")
message = make_message(metadata=metadata, content=RecordDict({"w": ArrayRecord({"w": array})}))
del sent, array
before = peak()
reply = relay(message, socket=sys.argv[1])
assert hashlib.sha256(reply.content.array_records["w"]["w"].data).hexdigest() == digest
print(peak() - before)
"""


@pytest.mark.slow
def test_300_mb_stream_through_with_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(APPS))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    socket = tmp_path / "a.sock"
    command = [sys.executable, "-m", "fedage.client.agent.main", str(tmp_path), "--socket", str(socket)]
    agent = subprocess.Popen([*command, "--app", "echo_site:app"])
    try:
        sent = subprocess.run([sys.executable, "-c", SEND, str(socket)], capture_output=True, text=True, check=False)
        assert sent.returncode == 0, sent.stderr
        status = Path(f"/proc/{agent.pid}/status")
        agents_mb = int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024 if status.exists() else 0.0
    finally:
        agent.terminate()
        agent.wait()
    # The message and its reply are held once each, and once more while an array is put together from its frames.
    assert float(sent.stdout) < 3 * 300
    assert agents_mb < 250 + 2.5 * 300
