"""Names that options use for parts of networks; without torch, so that a command line can read options."""

from __future__ import annotations

from typing import Literal

Norm = Literal["group", "batch"]
