"""`fedage demo`: the whole idea on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedage.deploy.demo.kinds import names


def demo(
    quick: Annotated[bool, typer.Option("--quick", help="fewer patients and rounds")] = False,
    out: Annotated[Path | None, typer.Option(help="folder for everything; fedage-demo if not given")] = None,
    estimator: Annotated[
        str,
        typer.Option(help=f"what is learnt: {', '.join(names())}"),
    ] = "chest-ca",
    seed: Annotated[int, typer.Option(help="same seed, same numbers", min=0, max=2**32 - 1)] = 1,
) -> None:
    """Three hospitals with phantoms, a coordinator, TLS, rounds of training, survival analysis, a report."""
    from fedage.deploy.demo.run import run_demo

    status = run_demo(out=out, quick=quick, seed=seed, estimator=estimator)
    if status:
        raise typer.Exit(status)
