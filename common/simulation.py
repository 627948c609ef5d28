"""What a simulation's processes are told: one file, written by the command, read by the ServerApp and every actor.

Flower's simulation engine gives a virtual node nothing but a number, and moves it between processes. So the file maps
numbers to sites, and everything a site keeps is on disk.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

VARIABLE = "FEDAGE_SIMULATION"


class SimulatedSiteJob(BaseModel):
    """One virtual hospital."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: Literal["table", "images"]
    home: Path


class SimulationJob(BaseModel):
    """One simulated run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    campaign: Path
    run: str
    folder: Path
    threads: int = 1
    sites: tuple[SimulatedSiteJob, ...]

    def write(self, path: Path) -> None:
        """Write the file and tell this process's children where it is."""
        path.write_text(self.model_dump_json(indent=1), encoding="utf-8")
        os.environ[VARIABLE] = str(path)


def current_job() -> SimulationJob | None:
    """The job this process belongs to, or None outside a simulation."""
    path = os.environ.get(VARIABLE)
    return SimulationJob.model_validate_json(Path(path).read_text(encoding="utf-8")) if path else None
