"""Where a run happens, and everything that it has found so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from fedage.common.bundle.container import Bundle
from fedage.server.campaign.analyses import AnalysisOutcomes
from fedage.server.campaign.rounds import RoundRecord
from fedage.server.sites.session import Answer


@dataclass(frozen=True)
class Place:
    """Where a run happens and is recorded."""

    folder: Path
    run: str
    environment: str
    guard: bool
    sites_there: int | None = None
    """How many sites there are; None where they come and go, in a deployment."""


@dataclass
class Record:
    """Everything a run has found so far."""

    started: datetime
    descriptions: dict[str, Answer] = field(default_factory=dict)
    rounds: list[RoundRecord] = field(default_factory=list)
    findings: AnalysisOutcomes = field(default_factory=AnalysisOutcomes)
    external: AnalysisOutcomes = field(default_factory=AnalysisOutcomes)
    """Of the sites that only validate, where others train."""
    bundle: Bundle | None = None
    preparation: dict[int, dict[str, object]] = field(default_factory=dict)
    noised_at: list[str] = field(default_factory=list)
    """Sites that sent sums with noise, once for each model."""
    status: str = "failed"
    reason: str = ""
