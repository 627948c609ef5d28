"""What a line of the audit log costs: `python tests/bench/bench_audit.py [--lines 200]`.

Every reply waits for its line to be on disk. Beside it stands the least that takes, a write of 4096 bytes and an fsync
on the same disk; the two alternate.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fedage.client.audit import AuditLog, Direction, Entry, Kind


def seconds(call: Callable[[], object]) -> float:
    """Wall clock of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200)
    lines = parser.parse_args().lines
    appends, syncs = [], []
    with tempfile.TemporaryDirectory() as folder:
        log = AuditLog(Path(folder))
        probe = os.open(Path(folder) / "probe", os.O_CREAT | os.O_WRONLY)

        def write_and_sync() -> None:
            os.write(probe, b"x" * 4096)
            os.fsync(probe)

        for number in range(lines):
            entry = Entry(direction=Direction.OUT, kind=Kind.TRAIN, round=number)
            appends.append(seconds(lambda entry=entry: log.append(entry)))
            syncs.append(seconds(write_and_sync))
        os.close(probe)
        log.close()
    ours, plain = statistics.median(appends), statistics.median(syncs)
    print(f"a line of the audit log, hashed, signed and on disk: {ours * 1000:.2f} ms")
    print(f"a write of 4096 bytes and an fsync: {plain * 1000:.2f} ms")
    print(f"ratio: {ours / plain:.1f}")


if __name__ == "__main__":
    main()
