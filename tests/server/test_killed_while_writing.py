"""A run whose process is killed while a round's model is written into its journal ends like one that was left alone.

Real SIGKILLs from outside, on a real disk where --basetemp is on one; what each met is printed, and appended to the
file FEDAGE_CHAOS_LOG. Which of a round's files is there yet is up to the disk, that the end is the same is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedage.server.record.results import read_results
from tests.server.killed_while_writing import ROUNDS


def ended(folder: Path, moments: str) -> tuple[bytes, object, object, str]:
    folder.mkdir()
    command = [sys.executable, "-m", "tests.server.killed_while_writing", str(folder), moments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=1700,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = folder / "runs" / "folds" / "r1"
    results = read_results(run / "results.json")
    assert results.run.status == "finished"
    assert [each.number for each in results.rounds] == list(range(1, ROUNDS + 1))
    assert not list(folder.rglob("*.partial"))
    return (run / "model.safetensors").read_bytes(), results.analyses, results.rounds[-1].sites, done.stdout


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.timeout(3600)
def test_a_kill_while_a_rounds_model_is_written_changes_nothing(tmp_path: Path) -> None:
    *wanted, _ = ended(tmp_path / "whole", "")
    for number, moments in enumerate(("000000", "012012", "210000")):
        *found, said = ended(tmp_path / f"killed-{number}", moments)
        assert found == wanted
        assert said.count("killed") == len(moments)
        print(said, flush=True)
        if log := os.environ.get("FEDAGE_CHAOS_LOG"):
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(said)
