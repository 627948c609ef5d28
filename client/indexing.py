"""`fedage site index`: from the site's configured folders into its store, with a table of what was found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fedage.client.audit import AuditLog, Direction, Entry, Kind
from fedage.client.cohort.index import IndexReport, index_folder
from fedage.client.cohort.store import CohortStore
from fedage.client.home import SiteHome
from fedage.common.errors import FedAgeError


def index_site(home_path: Path) -> IndexReport:
    """Index the site's data folder and show what came in and what was set aside.

    Raises
    ------
    FedAgeError
        If the site has no data folder, or it cannot be read.
    """
    home = SiteHome.load(home_path)
    if home.config.data is None:
        raise FedAgeError(f"{home.root / 'site.toml'}: data is not set; set it to the folder with the images")
    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("reading headers", total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        with CohortStore.open(home.root) as store:
            report = index_folder(store, Path(home.config.data), outcomes_csv=_outcomes(home), progress=tell)
    AuditLog(home.root).append(Entry(direction=Direction.SITE, kind=Kind.INDEX, patients=report.patients))
    _show(report, console)
    return report


def _outcomes(home: SiteHome) -> Path | None:
    return Path(home.config.outcomes) if home.config.outcomes else None


def _show(report: IndexReport, console: Console) -> None:
    console.print(
        f"{report.patients} patients, {report.exams} exams, {report.images} images "
        f"({report.files} files seen: {report.new} new, {report.unchanged} unchanged, {report.removed} removed)"
    )
    if report.rejected:
        table = Table("set aside", "files", box=None)
        for code, count in sorted(report.rejected.items()):
            table.add_row(code, str(count))
        console.print(table)
