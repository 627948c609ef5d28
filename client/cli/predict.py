"""`fedage predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="the file that fedage campaign export wrote")],
    data: Annotated[
        Path | None,
        typer.Option(help="a table, a folder of images, or one image; what the site has indexed if not given"),
    ] = None,
    home: Annotated[Path | None, typer.Option(help="a site's folder", envvar="FEDAGE_SITE_HOME")] = None,
    key: Annotated[
        Path | None, typer.Option(help="coordinator.pub of whoever exported it; the one the site pinned if not given")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="the CSV to write; in the site's folder if not given")] = None,
    id_column: Annotated[str | None, typer.Option("--id", help="column of a table that tells exams apart")] = None,
    age: Annotated[str | None, typer.Option(help="column of a table with the age in years")] = None,
    sex: Annotated[str | None, typer.Option(help="column of a table with the sex")] = None,
    bias_line: Annotated[
        str | None,
        typer.Option(help="whose bias line corrects: a site of the training, or 'all sites' [default: this site's]"),
    ] = None,
    maps: Annotated[
        Path | None, typer.Option(help="write where the model looks in each exam to this .npz file, which stays here")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda")] = "auto",
) -> None:
    """Predict the ages of new exams with a bundle, into a CSV that stays here. Works without a network."""
    from fedage.client.prediction.run import predict as run
    from fedage.client.prediction.tables import Named

    named = Named(id=id_column, age=age, sex=sex)
    done = run(bundle, data=data, home=home, key=key, out=out, named=named, line=bias_line, maps=maps, device=device)
    for sentence in done.said:
        typer.echo(f"- {sentence}")
    typer.echo(f"predictions: {done.file}")
