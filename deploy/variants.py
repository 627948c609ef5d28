"""`fedage simulate --variants`: one campaign's data and folds, several estimators or options, side by side.

A variant changes `[estimator]`, `[training]` and `[analyses]` of the campaign file and nothing else, so that patients,
folds and seed are the same. A variant can still lose patients: an estimator sets other images aside than another one.
Each virtual site therefore leaves a digest of its patients and their parts, and variants whose digests differ are not
laid side by side.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
from rich.console import Console

from fedage.common.campaign import Campaign
from fedage.common.campaign_file import CampaignErrors, parse_campaign
from fedage.common.errors import FedAgeError
from fedage.common.presentation.wording import listed
from fedage.common.toml.text import MAX_TOML_BYTES
from fedage.deploy.machine.bounded import MAX_RECORD_BYTES, read_json, read_text_at_most
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.deploy.machine.out_folder import require_empty
from fedage.deploy.machine.settings import toml_tables
from fedage.deploy.simulate import PARTS, simulate
from fedage.server.compare.comparison import compare
from fedage.server.compare.page import render_comparison
from fedage.server.compare.runs import load_runs
from fedage.server.compare.table import print_comparison

BASE = "base"
"""The campaign as it stands, the first one of a comparison."""
PAGE = "compare.html"
_MAY_CHANGE = ("estimator", "training", "analyses")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Variant:
    """One campaign of the comparison, by the name of its folder."""

    name: str
    campaign: Campaign


def read_variants(campaign_file: Path, variants_file: Path) -> list[Variant]:
    """The campaign as it stands, and its variants in the order of the file; all are checked.

    Raises
    ------
    FedAgeError
        With the first file that cannot be used, or everything that is wrong with a variant.
    """
    base = load_campaign(campaign_file)
    try:
        text = read_text_at_most(variants_file, most_bytes=MAX_TOML_BYTES)
    except (OSError, ValueError) as error:
        raise FedAgeError(f"{variants_file} cannot be read ({error}); give a TOML file of variants") from None
    tables = toml_tables(text, file=variants_file)
    if not tables:
        raise FedAgeError(f"{variants_file} has no variant; add a table a variant, e.g. [wide.estimator.options]")
    found = [Variant(BASE, base)]
    for name, changes in tables.items():
        found.append(Variant(name, _varied(base, name, changes, file=variants_file)))
    return found


def _varied(base: Campaign, name: str, changes: Any, *, file: Path) -> Campaign:
    if not _NAME.fullmatch(name) or name == BASE:
        raise FedAgeError(
            f"{file}: a variant cannot be called {name!r}; use up to 40 small letters, digits, - and _, but {BASE}"
        )
    if not isinstance(changes, Mapping) or not changes or (other := [k for k in changes if k not in _MAY_CHANGE]):
        what = f"changes {listed(other)}" if isinstance(changes, Mapping) and changes else "changes nothing"
        raise FedAgeError(
            f"{file}: variant {name} {what}; a variant may change {listed(_MAY_CHANGE)}, so that patients and folds "
            "stay those of the campaign file"
        )
    before = toml_tables(base.text, file=file)
    estimator = changes.get("estimator")
    if isinstance(estimator, Mapping) and estimator.get("name") not in (None, before.get("estimator", {}).get("name")):
        # Another estimator has other options.
        before = {**before, "estimator": {}}
    try:
        return parse_campaign(tomli_w.dumps(_merged(before, changes)))
    except CampaignErrors as errors:
        raise FedAgeError(f"{file}: variant {name}: {errors}") from None


def _merged(tables: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The tables with the changes in them; tables in both are merged, everything else is replaced."""
    made = dict(tables)
    for key, value in changes.items():
        inside = made.get(key)
        made[key] = _merged(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
    return made


def simulate_variants(
    campaign_file: Path, variants_file: Path, *, data: Path, site_column: str | None, out: Path, console: Console
) -> bool:
    """Simulate each variant into a folder of `out`, and lay those that finished side by side; whether all finished.

    Raises
    ------
    FedAgeError
        If a file cannot be used, or the variants were judged on different patients; the runs stay where they are.
    """
    variants = read_variants(campaign_file, variants_file)
    require_empty(out)
    out.mkdir(parents=True, exist_ok=True)
    finished: list[Path] = []
    for number, variant in enumerate(variants, start=1):
        console.print(f"variant {variant.name}, {number} of {len(variants)}")
        folder = out / variant.name
        try:
            results = simulate(variant.campaign, data=data, site_column=site_column, out=folder, console=console)
        except FedAgeError as error:
            console.print(f"variant {variant.name} did not run: {error}")
            continue
        if results.run.status == "finished":
            finished.append(folder)
        else:
            console.print(f"variant {variant.name} {results.run.status}; it is left out of the comparison")
    if len(finished) < 2:
        raise FedAgeError(f"{len(finished)} of {len(variants)} variants finished, a comparison needs at least 2")
    require_same_patients(finished)
    comparison = compare(load_runs(finished))
    (out / PAGE).write_text(render_comparison(comparison), encoding="utf-8")
    print_comparison(comparison, console=console)
    console.print(f"curves: {out / PAGE}")
    return len(finished) == len(variants)


def require_same_patients(folders: Sequence[Path]) -> None:
    """Refuse runs whose sites had other patients, or the same ones in other parts.

    Raises
    ------
    FedAgeError
        Naming the runs and the sites.
    """
    first, *others = folders
    expected = _parts(first)
    for folder in others:
        found = _parts(folder)
        differing = sorted(site for site in expected.keys() | found.keys() if expected.get(site) != found.get(site))
        if differing:
            raise FedAgeError(
                f"{folder.name} and {first.name} were not judged on the same patients in the same folds at "
                f"{listed(differing)}, so their errors cannot be laid side by side: an estimator sets aside what it "
                "cannot use. Restrict [cohort] or the data to patients that every variant can use; the runs are in "
                f"{first.parent}"
            )


def _parts(folder: Path) -> dict[str, str]:
    try:
        read: dict[str, str] = read_json(folder / PARTS, most_bytes=MAX_RECORD_BYTES)
    except (OSError, ValueError, json.JSONDecodeError):
        raise FedAgeError(f"{folder / PARTS} cannot be read; it tells which patients were judged") from None
    return read
