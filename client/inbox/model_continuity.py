"""A site's account of the models of a run: what is not a step of training follows from the file and from agreed sums.

Kept in the campaign's state folder, a file for each run, fold and phase that is trained, so that a restarted agent
holds the same rule. The file has the last model admitted, its place in the phase, and how far the phase has come. See
`fedage.common.networks.steps` for the attack, the rule and what remains.
"""

from __future__ import annotations

import json
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

from fedage.client.inbox.gate import Work
from fedage.client.inbox.start_bundle import with_start_bundle
from fedage.client.site.durable import StoreUnavailable, named_failures
from fedage.common.errors import FedAgeError
from fedage.common.estimators.base import ROW, Estimator, RoundsPhase
from fedage.common.estimators.configure import configured, phases_of, step_limits
from fedage.common.estimators.derive import NoFirstModel, is_same_model, last_rounds, model_before, roles
from fedage.common.networks.arrays import ModelRefused, check_arrays
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import ROUNDING, StepLimits, StepTooLong, step_between
from fedage.common.protocol.basis import Basis, split_basis
from fedage.common.protocol.messages import RequestRefused, payload_digest
from fedage.deploy.machine.atomic import write_atomically

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
    """The last model admitted of a phase of a run and fold.

    `rounds` are the digests of the models admitted, by the round of the phase each began; the place of a model after
    the last round is one more.
    """

    model: Arrays
    round: int
    path: float
    rounds: Mapping[int, str]
    roles: ArrayRoles


@dataclass
class _FirstModels:
    """The models worked out last: the sites of a simulation share a process, and each would solve the same."""

    models: OrderedDict[tuple[str, ...], dict[str, NDArray[Any]]] = field(default_factory=OrderedDict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def before(self, work: Work, *, phase: int, basis: Basis) -> dict[str, NDArray[Any]]:
        features, fold = work.site_cohort.features, work.request.fold
        sums = [(name, payload_digest({"total": s.total, **s.iterate})) for name, s in sorted(basis.sums.items())]
        trained = payload_digest(basis.trained) if basis.trained is not None else ""
        given = payload_digest(basis.given) if basis.given is not None else ""
        key = (
            work.campaign.digest,
            f"{fold} {phase} {work.campaign.cell_minimum}",
            trained,
            given,
            str(sums),
            *features,
        )
        with self.lock:
            if key not in self.models:
                self.models[key] = model_before(work.campaign, features, fold=fold, phase=phase, basis=basis)
                while len(self.models) > _KEPT_FIRST_MODELS:
                    self.models.popitem(last=False)
            return self.models[key]


_first_models = _FirstModels()
_accounting = threading.Lock()


def admit_model(
    work: Work, weights: Arrays, *, name: str, phase: int, round_number: int = 1, basis: Basis | None = None
) -> ArrayRoles | None:
    """Account for the model that a request brings, before anything is computed with it.

    Parameters
    ----------
    name
        The run's and fold's, for the file.
    phase
        The phase that the model begins, or is in; as many as there are for the finished model.
    round_number
        The round of the phase that begins with this model.
    basis
        What the model follows from; as the request's payload says if not given.

    Returns
    -------
    roles
        What its arrays are; None for a model that is not in training.

    Raises
    ------
    RequestRefused
        Rule `model` for arrays that are not the campaign's; `first-model`, `model-standard`, `another-model`,
        `model-step`, `running-statistics`, `fixed-arrays`, `model-path` or `bundle`.
    StoreUnavailable
        If the account cannot be kept: nothing may be answered then.
    """
    basis = with_start_bundle(work, split_basis(work.payload) if basis is None else basis)
    with _accounting:
        estimator = _estimator(work)
        phases = phases_of(estimator)
        if phase < len(phases) and isinstance(phases[phase], RoundsPhase):
            return _in_training(work, weights, name=name, phase=phase, round_number=round_number, basis=basis)
        if phase > 0 and isinstance(phases[phase - 1], RoundsPhase):
            assert work.campaign.training is not None
            after = work.campaign.training.rounds + 1
            _in_training(work, weights, name=name, phase=phase - 1, round_number=after, basis=basis)
            return None
        own = _worked_out(work, name=name, phase=phase, basis=basis)
        _must_be_like(own, weights)
        if not is_same_model(estimator, weights, own):
            raise RequestRefused(FIRST_MODEL, _NOT_THAT_ONE)
        must_fit_the_site(work, weights)
        return None


_NOT_THAT_ONE = "the model is not the one that follows from the approved campaign file"


def _estimator(work: Work) -> Estimator:
    estimator = configured(work.campaign, work.site_cohort.features)
    if estimator is None:
        raise RequestRefused("no-estimator", "the approved campaign file has no estimator")
    return estimator


def _in_training(
    work: Work, weights: Arrays, *, name: str, phase: int, round_number: int, basis: Basis
) -> ArrayRoles | None:
    """Account for a model of a phase that is trained."""
    limits, digest = step_limits(work.campaign), payload_digest(weights)
    if limits is None:
        raise RequestRefused("not-trained", "the approved campaign file trains nothing in rounds")
    path = account_file(work, name, phase=phase)
    account = _read(path)
    if account is None:
        account = _begun(work, weights, name=name, phase=phase, digest=digest, round_number=round_number, basis=basis)
    elif (known := account.rounds.get(round_number)) is not None:
        if known != digest:
            raise RequestRefused(ANOTHER_MODEL, "this run has brought another model for this round before")
        return account.roles
    elif _is_finished(work, round_number) and digest in account.rounds.values():
        # The model of an earlier round is kept: it was bounded when it came, and has been answered.
        known_as = replace(account, rounds={**account.rounds, round_number: digest})
        _write(path, known_as, durable=work.site.rules is not None)
        return account.roles
    else:
        _must_be_like(account.model, weights)
    moved = _moved(account, weights, limits=limits, digest=digest, round_number=round_number)
    _write(path, moved, durable=work.site.rules is not None)  # a simulation's is gone when it ends
    return account.roles


def _is_finished(work: Work, round_number: int) -> bool:
    """Whether the model of a round is the one that the rounds of a phase end with."""
    return work.campaign.training is not None and round_number == work.campaign.training.rounds + 1


def account_file(work: Work, name: str, *, phase: int, kind: str = "model") -> Path:
    """The account of a phase, or another file of it; that of the first phase that is trained has the run's own name."""
    suffix = f"--phase-{phase + 1}" if last_rounds(_estimator(work), before=phase) is not None else ""
    return work.site.state_dir(work.request.digest) / f"{kind}-{name}{suffix}.safetensors"


def _worked_out(work: Work, *, name: str, phase: int, basis: Basis) -> dict[str, NDArray[Any]]:
    """The model that a phase begins with, after accounting for the trained one that it follows from."""
    trained = last_rounds(_estimator(work), before=phase)
    if trained is not None and basis.trained is not None:
        assert work.campaign.training is not None
        after = work.campaign.training.rounds + 1
        before = Basis(sums=basis.sums, given=basis.given)
        _in_training(work, basis.trained, name=name, phase=trained, round_number=after, basis=before)
    try:
        return _first_models.before(work, phase=phase, basis=basis)
    except FedAgeError as reason:
        raise RequestRefused(FIRST_MODEL, str(reason)) from None


def _begun(
    work: Work, weights: Arrays, *, name: str, phase: int, digest: str, round_number: int, basis: Basis
) -> _Account:
    """The account of a phase at its first model, after checking the model sent if that is the first."""
    first = _worked_out(work, name=name, phase=phase, basis=basis)
    _must_be_like(first, weights)
    try:
        array_roles = roles(work.campaign, work.site_cohort.features, phase=phase)
    except NoFirstModel as refused:
        raise RequestRefused(FIRST_MODEL, str(refused)) from None
    names = None if round_number == 1 else array_roles.fixed
    if not is_same_model(_estimator(work), weights, first, names=names):
        raise RequestRefused(FIRST_MODEL, _NOT_THAT_ONE)
    must_fit_the_site(work, weights)
    model = first if round_number > 1 else dict(weights)
    model = {**model, **{name: np.asarray(weights[name]) for name in array_roles.fixed}}
    # The bound is one of the run: what its phases before have used is gone.
    before = last_rounds(_estimator(work), before=phase)
    earlier = None if before is None else _read(account_file(work, name, phase=before))
    path = 0.0 if earlier is None else earlier.path
    return _Account(model=model, round=1, path=path, rounds={1: digest} if round_number == 1 else {}, roles=array_roles)


def _moved(account: _Account, weights: Arrays, *, limits: StepLimits, digest: str, round_number: int) -> _Account:
    """The account with one more model. Raises `RequestRefused`."""
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


def must_fit_the_site(work: Work, weights: Arrays) -> None:
    """Refuse a standardisation by which a table's patients here lie far out, as groups: it would be a threshold.

    Judged by the mean and SD of all patients of the campaign here, which sums tell anyway.
    """
    standard, samples = _estimator(work).standard(weights), work.site_cohort.samples
    if standard is None or samples is None or ROW not in samples.arrays or len(samples) < work.minimum_count:
        return
    means, unit = standard.means, standard.units
    x = np.asarray(samples[ROW], dtype=np.float64)
    known = np.isfinite(x)
    n = np.maximum(known.sum(axis=0), 1)
    centred = np.where(known, x - means, 0.0) * unit
    mean = centred.sum(axis=0) / n
    sd = np.sqrt(np.maximum(np.square(centred).sum(axis=0) / n - mean**2, 0.0))
    # A median far out would mark the patients whose value is missing.
    median = (standard.medians - means) * unit
    if max(np.abs(mean).max(), sd.max(), np.abs(median).max()) > LARGEST_STANDARDISED:
        raise RequestRefused(
            STANDARD,
            f"by the model's means and SDs of features, this site's patients, or the median that stands for missing "
            f"values, lie more than {LARGEST_STANDARDISED:g} SDs out in one; if the sites' tables have a feature in "
            "different units, give them the same",
        )


def _read(path: Path) -> _Account | None:
    """The account on disk; None before there is one. Raises `StoreUnavailable` for one that cannot be read."""
    if not path.is_file():
        return None
    try:
        with named_failures(path, unavailable=StoreUnavailable), safe_open(path, framework="numpy") as file:
            fields = json.loads(file.metadata()[_FILE_KEY])
            model = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        return _Account(
            model=model,
            round=int(fields["round"]),
            path=float(fields["path"]),
            rounds={int(number): str(digest) for number, digest in fields["rounds"].items()},
            roles=ArrayRoles.from_json(fields["roles"]),
        )
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise StoreUnavailable(path, "damaged; restore it from a backup, or start a new run") from None


def _write(path: Path, account: _Account, *, durable: bool) -> None:
    """On disk before anything is computed with the model; a crash leaves the old account or the new one."""
    fields = {
        "round": account.round,
        "path": account.path,
        "rounds": {str(number): digest for number, digest in account.rounds.items()},
        "roles": account.roles.to_json(),
    }
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in account.model.items()}
    with named_failures(path, unavailable=StoreUnavailable):
        content = safetensors.numpy.save(arrays, metadata={_FILE_KEY: json.dumps(fields)})
        write_atomically(path, content, durable=durable)
