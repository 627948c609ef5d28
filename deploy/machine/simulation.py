"""What a simulation's processes are told: one file, written by the command, read by the ServerApp and every site.

Flower's simulation engine gives a virtual node nothing but a number, and moves it between processes. So the file maps
numbers to sites, and everything a site keeps is on disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from fedage.deploy.machine.atomic import write_atomically
from fedage.deploy.machine.bounded import MAX_RECORD_BYTES, read_at_most

VARIABLE = "FEDAGE_SIMULATION"
ENGINE_ENDED = "the simulation engine ended by itself"
"""Why a run is stopped whose engine did not start, or failed later, while its ServerApp was there."""


class SimulatedSiteJob(BaseModel):
    """One virtual hospital."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["table", "images"]
    home: Path


class Share(BaseModel):
    """What the machine gives to each site while it computes.

    `at_a_time` sites compute at once, each in a process of its own; `gpu` is the part of a GPU that each has, 0 on the
    CPU.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Literal["cpu", "cuda"] = "cpu"
    at_a_time: int = 1
    gpus: int = 0
    gpu: float = 0.0


class SimulationJob(BaseModel):
    """One simulated run. Where a file `stop_file` appears, the run writes its record and ends.

    `engine` says where the sites are: one after another in the run's own process, or in those of Flower's engine.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: Path
    run: str
    folder: Path
    stop_file: Path | None = None
    threads: int = 1
    share: Share = Share()
    sites: tuple[SimulatedSiteJob, ...]
    engine: Literal["process", "flower"] = "flower"

    def write(self, path: Path) -> None:
        """Write the file that `VARIABLE` names to the processes of the run."""
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")

    def stopped(self) -> bool | str:
        """Whether the run is to end; the reason where one was given."""
        if self.stop_file is None or not self.stop_file.exists():
            return False
        return read_at_most(self.stop_file, most_bytes=MAX_RECORD_BYTES).decode(errors="replace") or True

    def stop(self, reason: str = "") -> None:
        """Ask the run to end, from whatever process. The first reason given is kept."""
        if self.stop_file is None or not self.stop_file.parent.is_dir() or self.stop_file.exists():
            return
        # Whole or not there: a run that asks while it is written would else see no reason.
        write_atomically(self.stop_file, reason.encode(), durable=False)


def current_job() -> SimulationJob | None:
    """The job this process belongs to, or None outside a simulation."""
    path = os.environ.get(VARIABLE)
    return SimulationJob.model_validate_json(read_at_most(Path(path), most_bytes=MAX_RECORD_BYTES)) if path else None


def share_of(sites: int, *, cpus: int, gpus: int) -> Share:
    """How a simulation of some sites shares a machine.

    On GPUs at most `_SITES_A_GPU` sites share one, so that small GPUs' memory is enough; never more sites than CPUs.
    """
    at_a_time = max(1, min(cpus, sites))
    if gpus == 0:
        return Share(at_a_time=at_a_time)
    on_each = min(-(-at_a_time // gpus), _SITES_A_GPU)
    # Rounded down, because the parts of one GPU must not add up to more than it.
    part = int(1e4 / on_each) / 1e4
    return Share(device="cuda", at_a_time=min(at_a_time, on_each * gpus), gpus=gpus, gpu=part)


_SITES_A_GPU = 4
