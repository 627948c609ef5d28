"""`fedage site out-of-fold`: the ages that campaigns with folds predicted here, side by side in a table that stays.

Each patient's age is by the model that they were held out of. The table is what `age-ensemble` reads at a site: a
column `age_NAME` a member, and the patients by this site's keyed hashes, so that to the site's rules they are the same
patients as those of the images.

Attack: a coordinator chooses a member's model, so it may choose one whose prediction stands out for a single patient,
and then ask for sums over that column. Rule: the column is one of a table like any other: minimum counts, the influence
rule and approval hold for it, and nothing is sent by making it. Residual risk: the sums tell of the members' errors
here together, which is what they are for.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedage.client.cohort.keys import Keys, read_or_create
from fedage.client.compute.made_columns import with_dither
from fedage.client.compute.predictions import cohort_digest, name_of, with_all_folds
from fedage.client.consent.rules import SiteRules
from fedage.client.disclosure.guard import Withheld
from fedage.client.prediction.run import PREDICTIONS
from fedage.client.site.home import SiteHome
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import PREDICTED_YEARS
from fedage.common.protocol.heads import fingerprint
from fedage.common.protocol.messages import RequestRefused
from fedage.common.statistics.statistic import FloatArray
from fedage.deploy.machine.atomic import write_atomically

PATIENT, AGE, SEX, MEMBER = "patient", "age", "sex", "age_"
FILE = "out-of-fold.csv"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class OutOfFold:
    """What was written.

    Parameters
    ----------
    file
        The CSV, readable by its owner only.
    runs
        By member, the run whose ages it has.
    patients, other_exams
        Rows, and patients left out because two members judged different exams of them.
    """

    file: Path
    runs: Mapping[str, str]
    patients: int
    other_exams: int


@dataclass(frozen=True)
class _Member:
    run: str
    keys: tuple[str, ...]
    age_years: FloatArray
    is_male: FloatArray
    predicted_years: FloatArray


def write_out_of_fold(home: Path, members: Mapping[str, str], *, out: Path | None = None) -> OutOfFold:
    """Write the table of members (by name, the start of an approved campaign's digest) into the site's folder.

    Raises
    ------
    FedAgeError
        If a campaign is not approved here, has no folds, or has no whole run here, or if the file cannot be written.
    """
    site = SiteHome.load(home)
    rules = SiteRules(site.root, coordinator=fingerprint(site.coordinator_key()), site=site.config.name)
    found = {name: _member(site, rules, start, of=name) for name, start in members.items()}
    rows: dict[str, dict[str, float]] = {}
    differing = set()
    for name, member in found.items():
        for row in np.flatnonzero(np.isfinite(member.predicted_years)):
            key, age = member.keys[row], float(member.age_years[row])
            known = rows.setdefault(key, {AGE: age, SEX: float(member.is_male[row])})
            if known[AGE] != age:
                differing.add(key)
            known[MEMBER + name] = float(member.predicted_years[row])
    kept = sorted(set(rows) - differing)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = [MEMBER + name for name in found]
    writer.writerow([PATIENT, AGE, SEX, *columns])
    for key in kept:
        row_of = rows[key]
        sex = {1.0: "M", 0.0: "F"}.get(row_of[SEX], "")
        ages = [repr(row_of[name]) if name in row_of else "" for name in (AGE, *columns)]
        writer.writerow([key, ages[0], sex, *ages[1:]])
    file = _file(home, out)
    try:
        write_atomically(file, text.getvalue().encode("utf-8"))
    except OSError as error:
        raise FedAgeError(f"{file} cannot be written ({error.strerror}); give another file with --out") from None
    return OutOfFold(file, {name: member.run for name, member in found.items()}, len(kept), len(differing))


def members_of(words: Sequence[str]) -> dict[str, str]:
    """By name, the start of a digest, from `NAME=DIGEST`.

    Raises
    ------
    FedAgeError
        If one is none, or two have a name.
    """
    found: dict[str, str] = {}
    for word in words:
        name, equals, start = word.partition("=")
        if not equals or not start or not _NAME.fullmatch(name):
            raise FedAgeError(
                f"{word!r} is no member; give NAME=DIGEST, letters, digits, - and _ in the name, e.g. resnet18=3fa81c"
            )
        if name in found:
            raise FedAgeError(f"two members are called {name!r}; give each a name of its own")
        found[name] = start
    return found


def settings_for(file: Path) -> str:
    """`[table]` of `site.toml` that reads the file."""
    return f'[table]\npath = "{file}"\nid = "{PATIENT}"\nage = "{AGE}"\nsex = "{SEX}"\nkeyed = true'


def _file(home: Path, out: Path | None) -> Path:
    if out is not None:
        return out.absolute()
    folder = home.absolute() / PREDICTIONS
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / FILE


def _member(site: SiteHome, rules: SiteRules, start: str, *, of: str) -> _Member:
    digest = rules.approvals.find(start, among=("approved",))
    if (campaign := rules.known(digest)) is None:
        raise FedAgeError(f"{of}: this release cannot read the campaign file of {digest[:16]}…; approve it once more")
    what, folds = f"{of}: campaign {campaign.campaign.name}, digest {digest[:16]}…", campaign.validation.folds
    if campaign.estimator is None or folds is None:
        raise FedAgeError(f"{what}, has no folds, so its model has seen patients it predicts; set validation.folds")
    folder = site.state_dir(digest)
    runs = _whole_runs(folder, folds=folds)
    if not runs:
        raise FedAgeError(f"{what}, has no run here with the ages of all {folds} folds; run it to its end first")
    try:
        there = rules.cohort(campaign)
        snapshot = cohort_digest(there.cohort, snapshot=there.snapshot)
        cohort = with_all_folds(there.cohort, folder, run=runs[-1], folds=folds, snapshot=snapshot)
        # An ensemble's sums are over these columns: they have the noise that all sums over predictions have.
        secret = Keys(read_or_create(site.store_key, given=None, may_create=False)).secret("privacy")
        cohort = with_dither(cohort, campaign, patients=there.keys, secret=secret)
    except RequestRefused as refused:
        raise FedAgeError(f"{what}: {refused.detail} (rule {refused.rule})") from None
    except Withheld as withheld:
        raise FedAgeError(f"{what}, run {runs[-1]}: {withheld} (rule {withheld.rule})") from None
    return _Member(runs[-1], there.keys, cohort["age_years"], cohort["is_male"], cohort[PREDICTED_YEARS])


def _whole_runs(folder: Path, *, folds: int) -> list[str]:
    """Runs whose predictions of every fold are kept, the latest last."""
    last = name_of("", fold=folds - 1)
    files = sorted(folder.glob(f"predictions-*{last}.npz"), key=lambda file: file.stat().st_mtime_ns)
    runs = [file.stem.removeprefix("predictions-").removesuffix(last) for file in files]
    return [
        run
        for run in runs
        if all((folder / f"predictions-{name_of(run, fold=fold)}.npz").is_file() for fold in range(folds))
    ]
