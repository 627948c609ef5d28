"""A site's account of the models of a run: the first follows from the approved file, a later one from the one before.

Kept in the campaign's state folder, a file for each run and fold, so that a restarted agent holds the same rule. The
file has the last model admitted, its place in the run, and how far the run has come. See `fedage.common.continuity` for
the attack, the rule and what remains.
"""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedage.client._durable import StoreUnavailable, named_failures, sync
from fedage.client.gate import Work
from fedage.common.continuity import ROUNDING, StepLimits, StepTooLong, step_between
from fedage.common.errors import FedAgeError
from fedage.common.estimators.configure import step_limits
from fedage.common.estimators.first_model import first_model, is_first_model, roles, standard_of_table
from fedage.common.networks.arrays import ModelRefused, check_arrays
from fedage.common.networks.roles import ArrayRoles
from fedage.common.protocol import PreparedSums, RequestRefused, payload_digest, split_preparation

FIRST_MODEL, MODEL_PATH, ANOTHER_MODEL, STANDARD = "first-model", "model-path", "another-model", "model-standard"
"""Rules by which a model is refused here; `step_between` has others."""
LARGEST_STANDARDISED = 10.0
"""How far a site's own mean of a feature may lie from the model's, and how large its SD may be, in the model's SDs.
Sums of N patients give at most √(N / n) for a site's n among them; a coordinator's choice makes a feature a threshold.
"""
_FILE_KEY = "fedage"
_KEPT_FIRST_MODELS = 2

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Account:
    """The last model admitted of a run and fold.

    `rounds` are the digests of the models admitted, by the round each began; the place of a model after the last round
    is one more.
    """

    model: Arrays
    round: int
    path: float
    rounds: Mapping[int, str]
    roles: ArrayRoles | None


@dataclass
class _FirstModels:
    """The first models worked out last: the sites of a simulation share a process, and each would solve the same."""

    kept: OrderedDict[tuple[str, ...], dict[str, NDArray[Any]]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, work: Work, sums: PreparedSums | None) -> dict[str, NDArray[Any]]:
        features, fold = work.found.features, work.request.fold
        told = payload_digest({"total": sums.total, **sums.iterate}) if sums is not None else ""
        key = (work.campaign.digest, str(fold), told, *features)
        with self.lock:
            if key not in self.kept:
                self.kept[key] = first_model(work.campaign, features, fold=fold, sums=sums)
                while len(self.kept) > _KEPT_FIRST_MODELS:
                    self.kept.popitem(last=False)
            return self.kept[key]


_first_models = _FirstModels()
_accounting = threading.Lock()


def admit_model(work: Work, weights: Arrays, *, name: str, round_number: int) -> ArrayRoles | None:
    """Account for the model that a request brings, before anything is computed with it.

    Parameters
    ----------
    name
        The run's and fold's, for the file.
    round_number
        The round that begins with this model; one more than there are for the last.

    Returns
    -------
    roles
        What its arrays are; None for a model that is not trained in rounds.

    Raises
    ------
    RequestRefused
        Rule `model` for arrays that are not the campaign's; `first-model`, `model-standard`, `another-model`,
        `model-step`, `running-statistics`, `fixed-arrays` or `model-path`.
    StoreUnavailable
        If the account cannot be kept: nothing may be answered then.
    """
    limits, digest = step_limits(work.campaign), payload_digest(weights)
    path = work.site.state_dir(work.request.digest) / f"model-{name}.safetensors"
    with _accounting:
        account = _read(path) if limits is not None else None
        if account is None:
            account = _begun(work, weights, digest=digest, round_number=round_number)
        elif (known := account.rounds.get(round_number)) is not None:
            if known != digest:
                raise RequestRefused(ANOTHER_MODEL, "this run has brought another model for this round before")
            return account.roles
        else:
            _must_be_like(account.model, weights)
        if limits is None or account.roles is None:
            return None
        _write(path, _moved(account, weights, limits=limits, digest=digest, round_number=round_number))
    return account.roles


def _begun(work: Work, weights: Arrays, *, digest: str, round_number: int) -> _Account:
    """The account of a run at its first model, after checking the model sent if that is the first."""
    try:
        first = _first_models.of(work, split_preparation(work.payload))
    except FedAgeError as reason:
        raise RequestRefused(FIRST_MODEL, str(reason)) from None
    _must_be_like(first, weights)
    found = roles(work.campaign, work.found.features)
    names = None if found is None or round_number == 1 else found.fixed
    if not is_first_model(weights, first, names=names):
        raise RequestRefused(
            FIRST_MODEL, "the run's first model is not the one that follows from the approved campaign file"
        )
    _must_fit_the_site(work, weights)
    model = first if round_number > 1 else dict(weights)
    if found is not None:
        model = {**model, **{name: np.asarray(weights[name]) for name in found.fixed}}
    return _Account(model=model, round=1, path=0.0, rounds={1: digest} if round_number == 1 else {}, roles=found)


def _moved(account: _Account, weights: Arrays, *, limits: StepLimits, digest: str, round_number: int) -> _Account:
    """The account with one more model. Raises `RequestRefused`."""
    assert account.roles is not None
    rounds = round_number - account.round
    if rounds < 0:
        raise RequestRefused("model-step", "this run has brought a model of a later round before")
    try:
        norm = step_between(account.model, weights, account.roles, limits=limits, rounds=rounds)
    except StepTooLong as long:
        raise RequestRefused(long.rule, str(long)) from None
    path = account.path + norm
    if path > limits.path_norm * (1 + ROUNDING):
        raise RequestRefused(
            MODEL_PATH,
            f"the models of this run have moved further together than training.max_path_norm = {limits.path_norm:g}",
        )
    return replace(
        account, model=dict(weights), round=round_number, path=path, rounds={**account.rounds, round_number: digest}
    )


def _must_be_like(model: Arrays, weights: Arrays) -> None:
    try:
        check_arrays(weights, {name: array.shape for name, array in model.items()})
    except ModelRefused as refused:
        raise RequestRefused("model", str(refused)) from None


def _must_fit_the_site(work: Work, weights: Arrays) -> None:
    """Refuse a standardisation by which a table's patients here lie far out, as groups: it would be a threshold.

    Judged by the mean and SD of all patients of the campaign here, which sums tell anyway.
    """
    standard, samples = standard_of_table(weights), work.found.samples
    if standard is None or samples is None or len(samples) < work.minimum_count:
        return
    means, unit = standard
    x = np.asarray(samples, dtype=np.float64)
    known = np.isfinite(x)
    n = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, x - means, 0.0) * unit
    mean = centred.sum(axis=0) / n
    sd = np.sqrt(np.maximum(np.square(centred).sum(axis=0) / n - mean**2, 0.0))
    # A median far out would mark the patients whose value is missing.
    median = (np.asarray(weights["medians"], dtype=np.float64) - means) * unit
    if max(np.abs(mean).max(), sd.max(), np.abs(median).max()) > LARGEST_STANDARDISED:
        raise RequestRefused(
            STANDARD,
            f"by the model's means and SDs of features this site's patients, or the median that stands for missing "
            f"values, lie more than {LARGEST_STANDARDISED:g} SDs out in one; if the sites' tables have a feature in "
            "different units, give them the same",
        )


def _read(path: Path) -> _Account | None:
    """The account on disk; None before there is one. Raises `StoreUnavailable` for one that cannot be read."""
    if not path.is_file():
        return None
    try:
        with named_failures(path, unavailable=StoreUnavailable), safe_open(path, framework="numpy") as found:
            told = json.loads(found.metadata()[_FILE_KEY])
            model = {name: found.get_tensor(name) for name in found.keys()}  # noqa: SIM118 - no mapping
        return _Account(
            model=model,
            round=int(told["round"]),
            path=float(told["path"]),
            rounds={int(number): str(digest) for number, digest in told["rounds"].items()},
            roles=ArrayRoles.from_json(told["roles"]),
        )
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise StoreUnavailable(path, "damaged; restore it from a backup, or start a new run") from None


def _write(path: Path, account: _Account) -> None:
    """On disk before anything is computed with the model; a crash leaves the old account or the new one."""
    assert account.roles is not None
    told = {
        "round": account.round,
        "path": account.path,
        "rounds": {str(number): digest for number, digest in account.rounds.items()},
        "roles": account.roles.to_json(),
    }
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in account.model.items()}
    with named_failures(path, unavailable=StoreUnavailable):
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(safetensors.numpy.save(arrays, metadata={_FILE_KEY: json.dumps(told)}))
                stream.flush()
                os.fsync(stream.fileno())
            Path(partial).replace(path)
            sync(path.parent)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
