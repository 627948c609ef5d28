"""The runs to compare: their records, their campaign files where those lie beside them, and what to call them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedage.common.errors import FedAgeError
from fedage.common.toml.problems import printable
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import read_at_most
from fedage.deploy.machine.settings import SettingsErrors, toml_tables
from fedage.server.compare.settings import but_for_the_seed, flat_settings
from fedage.server.record.results import Results, read_results

RECORD, CAMPAIGN_FILE = "results.json", "campaign.toml"


class RunUnusable(FedAgeError):
    """A RUN of the command line is no run that can be compared."""


@dataclass(frozen=True)
class Run:
    """One run.

    Parameters
    ----------
    label
        What tables and figures call it; unique in a comparison.
    results
        Its record.
    settings
        Its campaign file by dotted key, defaults filled in; None if the file is not at hand.
    why_no_settings
        The reason if there are none.
    """

    label: str
    results: Results
    settings: Mapping[str, Any] | None
    why_no_settings: str = ""

    @property
    def but_for_the_seed(self) -> tuple[tuple[str, str], ...] | None:
        """What its campaign file says apart from its seed and name; None if the file is not at hand."""
        return None if self.settings is None else but_for_the_seed(self.settings)


def load_runs(paths: Sequence[Path]) -> tuple[Run, ...]:
    """Read the runs, each a folder with `results.json` or such a file itself.

    Raises
    ------
    RunUnusable
        If there are fewer than two, one is there twice, or one is no run.
    ResultsUnreadable
        If a record cannot be read.
    """
    files = [_record_of(path) for path in paths]
    counts = Counter(file.resolve() for file in files)
    for path, file in zip(paths, files, strict=True):
        if counts[file.resolve()] > 1:
            raise RunUnusable(f"{path} is given {counts[file.resolve()]} times; give every run once")
    if len(files) < 2:
        raise RunUnusable(f"{len(files)} run given, a comparison needs at least 2; add the folder of another run")
    return tuple(_load(label, file) for label, file in zip(_labels(files), files, strict=True))


def _record_of(path: Path) -> Path:
    if path.is_dir():
        if (path / RECORD).exists():
            return path / RECORD
        inside = sorted(record.parent.relative_to(path).as_posix() for record in path.glob(f"*/{RECORD}"))
        hint = f"it holds the runs {', '.join(inside[:3])}{', …' if len(inside) > 3 else ''}" if inside else ""
        raise RunUnusable(f"{path} has no {RECORD}; {hint or 'give the folder of a run that has ended'}")
    if not path.exists():
        raise RunUnusable(f"{path} does not exist; give the folder of a run, or its {RECORD}")
    return path


def _load(label: str, file: Path) -> Run:
    results = read_results(file)
    beside = file.with_name(CAMPAIGN_FILE)
    try:
        content = read_at_most(beside, most_bytes=MAX_TOML_BYTES)
        tables = toml_tables(content.decode("utf-8"), file=beside)
    except (OSError, ValueError, SettingsErrors):
        return Run(label, results, None, f"no readable {CAMPAIGN_FILE} beside the record")
    if hashlib.sha256(content).hexdigest() != results.campaign.digest:
        return Run(label, results, None, f"the {CAMPAIGN_FILE} beside the record is not the one that ran")
    return Run(label, results, flat_settings(tables))


def _labels(files: Sequence[Path]) -> list[str]:
    """The name of each run's folder (or file, if it is no `results.json`), with as many parents as tell them apart."""
    parts = []
    for file in files:
        whole = file.resolve()
        parts.append(whole.parent.parts if file.name == RECORD else (*whole.parent.parts, whole.stem))
    depth = [1] * len(parts)
    while True:
        labels = ["/".join(part[-n:]) for part, n in zip(parts, depth, strict=True)]
        counts = Counter(labels)
        longer = [
            n + 1 if counts[label] > 1 and n < len(part) else n
            for label, part, n in zip(labels, parts, depth, strict=True)
        ]
        if longer == depth:
            return [printable(label) for label in labels]
        depth = longer
