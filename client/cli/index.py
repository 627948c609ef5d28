"""`fedage site index`: from the site's folders and tables into its store, with a table of what was found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from fedage.client.audit import AuditLog, Direction, Entry, Kind
from fedage.client.cohort.indexing.bids import PARTICIPANTS, STANDARD, BidsLayout, index_bids, is_bids
from fedage.client.cohort.indexing.index import IndexReport, index_folder
from fedage.client.cohort.indexing.join_outcomes import store_outcomes
from fedage.client.cohort.indexing.rejects_page import rejects_table, write_rejects_page
from fedage.client.cohort.recipes import Recipe, recipe
from fedage.client.cohort.store.one_person import SEVERAL_PEOPLE, SEVERAL_SEXES, SHARED_STUDY
from fedage.client.cohort.store.statements import count_not_one_person
from fedage.client.cohort.store.store import CohortStore
from fedage.client.cohort.store.tables import TableReport, forget_table, index_table
from fedage.client.cohort.store.writer import LastIndexing, writing
from fedage.client.cohort.table.messages import reason_text
from fedage.client.cohort.table.outcomes import OutcomeTable, read_outcomes
from fedage.client.cohort.table_facts import NoTableFacts, WithSiteView
from fedage.client.site.home import SiteConfig, SiteHome
from fedage.client.site.mapping import OutcomeColumns
from fedage.common.errors import FedAgeError


@dataclass(frozen=True)
class SiteIndex:
    """What an indexing found, of images and of the site's table, whichever it has.

    Parameters
    ----------
    layout
        `dicom` or `bids`; empty without images.
    outcomes
        Counts of the table of outcomes; empty if there is none.
    messages
        What the hospital should know of the outcomes, in sentences.
    people
        Which identifiers do not stand for one person, in sentences.
    """

    layout: str
    images: IndexReport | None
    table: TableReport | None
    outcomes: Mapping[str, int]
    messages: tuple[str, ...] = ()
    people: tuple[str, ...] = ()

    @property
    def patients(self) -> int:
        """Patients with images, or in the table where those are more."""
        return max(self.images.patients if self.images else 0, self.table.patients if self.table else 0)


def index_site(home_path: Path) -> SiteIndex:
    """Index the site's data and show what came in and what was set aside.

    Raises
    ------
    FedAgeError
        If the site has no data, or it cannot be read.
    """
    home = SiteHome.load(home_path)
    # Columns are shown as they are called, never read as markup.
    console = Console(highlight=False, soft_wrap=True, markup=False)
    with Progress(console=console, transient=True) as progress, CohortStore.open(home.root) as store:
        task = progress.add_task("reading", total=None)

        def tell(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total)

        index = index_into(store, home.config, file=home.root / "site.toml", progress=tell)
    AuditLog(home.root).append(Entry(direction=Direction.SITE, kind=Kind.INDEX, patients=index.patients))
    _show(index, home, console)
    return index


def index_into(
    store: CohortStore, config: SiteConfig, *, file: Path, progress: Callable[[int, int], None] | None = None
) -> SiteIndex:
    """Bring a store up to date with what `config`, read from `file`, names.

    Raises
    ------
    FedAgeError
        If it names no data, or they cannot be read. Tables are read before images, so that a mistake in them comes at
        once.
    """
    if config.data is None and config.table is None:
        raise FedAgeError(f"{file}: data is not set; set it to the folder with the images, or add a [table]")
    root = Path(config.data) if config.data else None
    chosen = recipe(config.recipe) if config.recipe else None
    if chosen and root is None:
        raise FedAgeError(f"{file}: recipe = {chosen.name!r} needs data; set it to the data set's folder")
    layout = _bids(config, chosen, root) if root else None
    outcomes = _outcomes(config, chosen, root, of_participants=layout is not None)
    table, images = None, None
    if config.table is not None:
        table = index_table(store, config.table)
    else:
        forget_table(store)
    if root is not None and layout is not None:
        images = index_bids(store, root, layout=layout, progress=progress)
    elif root is not None:
        table_facts = chosen.table_facts(root) if chosen and chosen.table_facts else NoTableFacts()
        if config.view_if_unknown is not None:
            table_facts = WithSiteView(table_facts, config.view_if_unknown)
        images = index_folder(store, root, table_facts=table_facts, progress=progress)
    elif store.has_images:
        _forget_images(store)
    with store.exclusive():
        counts, notes = store_outcomes(store, outcomes, of_participants=layout is not None)
    not_one = count_not_one_person(store) if images is not None else {}
    people = tuple(_not_one_person(reason, count) for reason, count in sorted(not_one.items()))
    return SiteIndex("" if root is None else "bids" if layout else "dicom", images, table, counts, notes, people)


_WHAT_THEY_HAVE = {
    SEVERAL_PEOPLE: (
        "exams of several people by their birth dates or ages, or several studies under a name that stands for nobody "
        "(as ANONYMOUS or 0 does, or one number at two clinics)",
        "give each patient an identifier of their own",
    ),
    SEVERAL_SEXES: (
        "exams of both sexes",
        "correct PatientSex where it is wrong, or give each patient an identifier of their own",
    ),
    SHARED_STUDY: (
        "a study that stands under another PatientID too",
        "correct PatientID, or give each study a StudyInstanceUID of its own",
    ),
}


def _not_one_person(reason: str, count: int) -> str:
    whose, is_out = ("1 PatientID has", "is out") if count == 1 else (f"{count} PatientIDs have", "are out")
    what, mend = _WHAT_THEY_HAVE[reason]
    return f"{whose} {what}, and {is_out} of every campaign ({reason}); {mend}"


def _bids(config: SiteConfig, chosen: Recipe | None, root: Path) -> BidsLayout | None:
    """How the BIDS data set is laid out; None for DICOM files."""
    if chosen is not None:
        layout = chosen.bids
    else:
        layout = STANDARD if config.layout == "bids" or (config.layout == "auto" and is_bids(root)) else None
    return layout if layout is None or config.derivative is None else replace(layout, derivative=config.derivative)


def _outcomes(
    config: SiteConfig, chosen: Recipe | None, root: Path | None, *, of_participants: bool
) -> OutcomeTable | None:
    """The hospital's table if it gives one, else that of the data set."""
    columns = config.outcome_columns
    if config.outcomes is not None:
        columns = columns or OutcomeColumns()
        return read_outcomes(
            Path(config.outcomes), id_column=columns.id, columns=columns.columns, missing=columns.missing
        )
    if chosen is not None and chosen.outcomes is not None and root is not None:
        name, of_data_set = chosen.outcomes
        columns = columns or of_data_set
        return read_outcomes(root / name, id_column=columns.id, columns=columns.columns, missing=columns.missing)
    if of_participants and root is not None and (root / PARTICIPANTS).is_file():
        columns = columns or OutcomeColumns()
        return read_outcomes(
            root / PARTICIPANTS,
            id_column="participant_id",
            columns=columns.columns,
            missing=columns.missing,
            rows_are_sessions=True,
        )
    return None


def _forget_images(store: CohortStore) -> None:
    """The site has taken its folder of images out of its settings."""
    with store.exclusive():
        known = store.files()
        with writing(store) as writer:
            writer.remember(LastIndexing())
            writer.forget(known)
            writer.prune()


def _show(index: SiteIndex, home: SiteHome, console: Console) -> None:
    if index.images is not None:
        images = index.images
        console.print(
            f"{images.patients} patients, {images.exams} exams, {images.images} images ({index.layout}; "
            f"{images.files} files seen: {images.new} new, {images.unchanged} unchanged, {images.removed} removed)"
        )
        if images.volumes:
            console.print(f"of the images {images.volumes} are series of slices, {images.oblique} of these oblique")
        if images.links:
            console.print(f"symbolic links, which are not followed: {images.links}")
        if images.closed_folders:
            console.print(
                f"folders that this user cannot open, where what is known of the files stays: {images.closed_folders}"
            )
    if index.table is not None:
        state = "unchanged" if index.table.unchanged else "read"
        console.print(f"table {state}: {index.table.patients} patients, {index.table.columns} columns")
        _print_counts("of the table set aside", index.table.rejected, console)
        for reason, count in index.table.rejected.items():
            console.print(f"table: {reason_text(reason, count)}", markup=False)
    _print_counts("of the outcomes", index.outcomes, console)
    for line in index.messages:
        console.print(f"outcomes: {line}", markup=False)
    for line in index.people:
        console.print(f"patients: {line}", markup=False)
    if index.images is not None and index.images.rejected:
        with CohortStore.open(home.root) as store:
            console.print(rejects_table(store))
            page = write_rejects_page(store, home.root)
        console.print(f"what was set aside, to be read or sent on: {page}")


def _print_counts(title: str, counts: Mapping[str, int], console: Console) -> None:
    shown = {name: count for name, count in counts.items() if count}
    if shown:
        table = Table(title, "number", box=None, pad_edge=False)
        for name, count in shown.items():
            table.add_row(Text(name), f"{count:,}")
        console.print(table)
