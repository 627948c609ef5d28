"""A table and a page for the hospital: files set aside at an indexing, by reason and scanner, with the remedies.

Both stay at the site. They hold counts, reasons, modalities and manufacturers; paths, in which a patient's name may
stand, only where the hospital asks for them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.table import Table

from fedage.client.cohort.paths import SEPARATOR
from fedage.client.cohort.reasons import Reason
from fedage.client.cohort.store.store import CohortStore
from fedage.client.site.sqlite import scalars
from fedage.common.version import __version__
from fedage.deploy.machine.atomic import write_atomically

PAGE = "rejects.html"
UNKNOWN = "not said"
MAX_PATHS = 1000
"""Most paths that are listed for one reason."""


@dataclass(frozen=True)
class ScannerCount:
    """Files of one modality and manufacturer that are out for one reason."""

    modality: str
    manufacturer: str
    files: int


@dataclass(frozen=True)
class RejectedGroup:
    """What is out for one reason.

    Parameters
    ----------
    code, what, mend
        The reason, what is wrong with such a file, what to do.
    files
        How many there are.
    kinds
        The same by modality and manufacturer, the most frequent first.
    paths
        Relative to the indexed folder; empty unless asked for.
    """

    code: str
    description: str
    remedy: str
    files: int
    kinds: tuple[ScannerCount, ...]
    paths: tuple[str, ...] = ()


def rejected_groups(store: CohortStore, *, paths: bool = False) -> tuple[RejectedGroup, ...]:
    """What is out in a store, the most frequent reason first."""
    kinds: dict[str, list[ScannerCount]] = defaultdict(list)
    columns = "reason, modality, manufacturer"
    counts = f"SELECT {columns}, count(*) FROM rejected_files GROUP BY {columns}"
    with store.reading() as connection:
        for code, modality, manufacturer, count in connection.execute(counts):
            kinds[code].append(ScannerCount(modality or UNKNOWN, manufacturer or UNKNOWN, count))
    groups = []
    for code, of_reason in kinds.items():
        reason = Reason(code)
        ordered = sorted(of_reason, key=lambda kind: (-kind.files, kind.modality, kind.manufacturer))
        files = sum(kind.files for kind in ordered)
        listed = _paths(store, code) if paths else ()
        groups.append(RejectedGroup(code, reason.description, reason.remedy, files, tuple(ordered), listed))
    return tuple(sorted(groups, key=lambda one: (-one.files, one.code)))


def rejects_table(store: CohortStore) -> Table:
    """The table for the terminal: code, number of files, what is wrong, what to do."""
    table = Table("set aside", "files", "why: the file", "what to do", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    table.columns[0].no_wrap = True
    for one in rejected_groups(store):
        table.add_row(one.code, f"{one.files:,}", one.description, one.remedy)
    return table


def write_rejects_page(store: CohortStore, home: Path, *, paths: bool = False) -> Path:
    """Write the page into the site's home, readable by its owner only.

    Parameters
    ----------
    store
        An indexed store.
    home
        The site's home.
    paths
        Whether to list the files' paths, which may name patients.

    Returns
    -------
    Path
        The page.
    """
    page = render_rejects(store, paths=paths)
    target = Path(home) / PAGE
    write_atomically(target, page.encode(errors="backslashreplace"))
    return target


def render_rejects(store: CohortStore, *, paths: bool = False) -> str:
    """One HTML document that loads nothing."""
    environment = Environment(
        loader=PackageLoader("fedage.client.cohort.indexing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = rejected_groups(store, paths=paths)
    return environment.get_template("rejects.html.j2").render(
        groups=groups,
        out=sum(one.files for one in groups),
        counts=store.counts(),
        scanners=_by_scanner(groups),
        with_paths=paths,
        max_paths=MAX_PATHS,
        written=datetime.now().astimezone().strftime("%d %B %Y, %H:%M"),
        version=__version__,
    )


def _by_scanner(groups: tuple[RejectedGroup, ...]) -> list[tuple[str, str, int, list[tuple[str, int]]]]:
    """Modality, manufacturer, files out, and by which reasons; where at least one of the two is known."""
    reasons: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for group in groups:
        for kind in group.kinds:
            if (kind.modality, kind.manufacturer) != (UNKNOWN, UNKNOWN):
                reasons[kind.modality, kind.manufacturer][group.code] += kind.files
    rows = [(*key, counter.total(), counter.most_common()) for key, counter in reasons.items()]
    return sorted(rows, key=lambda row: (-row[2], row[0], row[1]))


def _paths(store: CohortStore, code: str) -> tuple[str, ...]:
    with store.reading() as connection:
        sealed = scalars(connection, "SELECT path FROM rejected_files WHERE reason = ?", (code,))
        paths = sorted(store.path_of(one).replace(SEPARATOR, " → ") for one in sealed)
    return tuple(paths[:MAX_PATHS])
