"""`flower-superlink`, ending when the process that started it does. Run by `SuperLink` with Flower's own arguments."""

from __future__ import annotations

from flwr.superlink.cli import flower_superlink

from fedage.common.processes import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    flower_superlink()
