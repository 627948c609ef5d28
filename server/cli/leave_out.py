"""`fedage campaign leave-out` and `left-out`: train without one site at a time, and what came of it at each."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fedage.server.record.results import Results


def leave_out(
    file: Annotated[Path, typer.Argument(help="the campaign file; campaign.sites names its sites")],
    out: Annotated[Path, typer.Option(help="folder for the files, made if it is not there")],
) -> None:
    """Write a campaign file for each site, in which that site only validates what all others train."""
    from fedage.common.campaign_file.leave_out import without_each_site
    from fedage.common.errors import FedAgeError
    from fedage.deploy.machine.campaign_file import load_campaign

    campaign = load_campaign(file)
    texts = without_each_site(file.read_text(encoding="utf-8"), name=str(file))
    for site, text in texts.items():
        path = out / f"{campaign.campaign.name}-without-{site}.toml"
        try:
            out.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise FedAgeError(f"{path} cannot be written ({error.strerror}); give another folder with --out") from None
        typer.echo(str(path))
    typer.echo("Run each, then: fedage campaign left-out RUN RUN...")


def left_out(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="folders of the runs, or their results.json")],
) -> None:
    """Show the error at each site that was left out of training, run by run."""
    from rich.console import Console

    from fedage.server.compare.runs import load_runs

    Console(highlight=False).print(left_out_table([run.results for run in load_runs(runs)]))


def left_out_table(records: Sequence[Results]) -> Table:
    """A row for each run: who only validated, errors there in years, and how well the other sites are told apart."""
    from rich.table import Table

    from fedage.common.analyses.evaluation.likely_site import SiteProbe
    from fedage.common.analyses.evaluation.results import Metrics

    table = Table("left out", "patients", "MAE", "of the mean", "site told (BAcc)", "OpenBHB score")
    for results in records:
        step = results.external.get("evaluation:test")
        found = step.result if step is not None and isinstance(step.result, Metrics) else None
        probe, _ = results.outcome("site-probe", SiteProbe)
        table.add_row(
            ", ".join(step.sites) if step is not None else "nobody",
            "" if found is None else str(found.n),
            _years(found.mae_years if found is not None else None),
            _years(found.mae_of_mean_years if found is not None else None),
            "" if probe is None else f"{probe.balanced_accuracy_low:.3f} to {probe.balanced_accuracy_high:.3f}",
            ""
            if probe is None or probe.openbhb_low is None or probe.openbhb_high is None
            else f"{probe.openbhb_low:.2f} to {probe.openbhb_high:.2f}",
        )
    return table


def _years(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
