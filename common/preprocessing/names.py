"""Names that options use for steps of preprocessing; without torch, so that a command line can read options."""

from __future__ import annotations

from typing import Literal

Intensity = Literal["mean", "foreground"]
