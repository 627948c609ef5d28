"""`fedage compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_OUT = Path("compare.html")
WIDTH_IN_A_PIPE = 200


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="folders of runs, or their results.json")],
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document and nothing else")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help=f"the page with the curves, a .html file; {DEFAULT_OUT} if not given, none with --json"),
    ] = None,
) -> None:
    """Lay runs side by side: a table, and a page with their curves over each other."""
    from rich.console import Console

    from fedage.common.errors import FedAgeError
    from fedage.server.compare import comparison as comparing
    from fedage.server.compare.page import render_comparison
    from fedage.server.compare.runs import load_runs
    from fedage.server.compare.table import print_comparison

    page = _page(out) if out is not None else None if as_json else DEFAULT_OUT
    comparison = comparing.compare(load_runs(runs))
    if page is not None:
        try:
            page.write_text(render_comparison(comparison), encoding="utf-8")
        except OSError as error:
            raise FedAgeError(f"{page} cannot be written ({error.strerror}); give another file with --out") from None
    if as_json:
        typer.echo(comparison.model_dump_json(indent=1))
        return
    print_comparison(comparison, console=Console(width=None if sys.stdout.isatty() else WIDTH_IN_A_PIPE))
    typer.echo(f"curves: {page}")


def _page(out: Path) -> Path:
    """The file to write: a name without a suffix gets .html, so that a browser opens it."""
    from fedage.common.errors import FedAgeError

    if out.suffix.lower() in (".html", ".htm"):
        return out
    if not out.suffix and not out.is_dir():
        return out.with_suffix(".html")
    raise FedAgeError(
        f"--out {out}: the page is one HTML file, so its name ends in .html; give e.g. --out {out.with_suffix('.html')}"
    )
