"""Names that options use for losses; without torch, so that a command line can read options."""

from __future__ import annotations

from typing import Literal

AgeKernel = Literal["rbf", "gaussian", "cauchy"]
ContrastiveLoss = Literal["exp", "y-aware", "threshold"]
