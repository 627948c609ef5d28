"""The comparison in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from fedage.common.presentation.cells import Table
from fedage.server.compare import tables
from fedage.server.compare.comparison import Comparison


def print_comparison(comparison: Comparison, *, console: Console) -> None:
    """The runs, what analyses show of them, what differs between their files, and what cannot be compared."""
    for banner in tables.banners(comparison):
        console.print(Text(banner, style="bold yellow"))
    _print(tables.headline(comparison), "on test patients, in years", console)
    for item in (item for each in comparison.shown for item in each.terminal):
        if isinstance(item, str):
            console.print(Text(item))
        else:
            _print(item.table, item.caption, console)
    for table, title in (
        (tables.settings(comparison), "settings that differ"),
        (tables.missing(comparison), "not there"),
    ):
        if table.rows:
            _print(table, title, console)
    for note in comparison.notes:
        console.print(Text(f"- {note}"))


def _print(table: Table, title: str, console: Console) -> None:
    if not table.rows:
        console.print(Text(f"{title}: {table.why_empty}"))
        return
    rich = RichTable(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD)
    for column, header in enumerate(table.headers):
        numbers = any(row[column].value for row in table.rows)
        rich.add_column(Text(header), justify="right" if numbers else "left", overflow="fold")
    for row in table.rows:
        rich.add_row(*(Text(cell.text) for cell in row))
    console.print(rich)
    if table.note:
        console.print(Text(table.note))
