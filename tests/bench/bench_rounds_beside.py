"""The whole table of speed in one command: a round of FedAge, NVFLARE and stock Flower, exchanges and memory.

Each part is a benchmark of its own, run one after the other so that none slows another down, with the machine's load
before and after. `PYTHONPATH=. python tests/bench/bench_rounds_beside.py --nvflare-python VENV/bin/python` prints what
each prints; without that environment NVFLARE is left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

BENCH = Path(__file__).parent


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nvflare-python", type=Path, help="Python of an environment with nvflare")
    nvflare: Path | None = parser.parse_args().nvflare_python
    parts = [["bench_round.py"], ["bench_stock_flower.py"], ["bench_messages.py"], ["bench_aggregate.py"]]
    parts += [["bench_memory.py"], ["bench_memory.py", "--mb", "2", "--sites", "3", "64"], ["bench_simulate.py"]]
    if nvflare is not None:
        parts.insert(1, ["bench_nvflare_round.py", "--python", str(nvflare)])
    failed = []
    for name, *options in parts:
        print(f"\n== {' '.join([name, *options])}; load before {os.getloadavg()[0]:.1f}", flush=True)
        began = time.monotonic()
        done = subprocess.run([sys.executable, str(BENCH / name), *options], check=False)
        print(f"-- {time.monotonic() - began:.0f} s; load after {os.getloadavg()[0]:.1f}", flush=True)
        failed += [name] if done.returncode else []
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
