"""What of a strategy stays at a site from round to round: its own control variate (SCAFFOLD), or its own batch
normalisation (FedBN). Kept beside the account of the run's models, a file for each run, fold and phase.

Two rounds are kept: that of the last training, and the one that this training began with. So a round that is asked
again begins as it did before, and an update that did not count is forgotten with its control variate: the coordinator
says the last round whose update of this site counted. See `networks.control_variates` for the attack and the rule.
Residual risk: a coordinator that says another one of the two has the site train with that.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from fedage.client.inbox.gate import Work
from fedage.client.inbox.model_continuity import ANOTHER_MODEL, account_file
from fedage.client.site.durable import StoreUnavailable, named_failures
from fedage.common.campaign.learning_rate import learning_rate
from fedage.common.networks.arrays import ModelRefused, check_arrays
from fedage.common.networks.control_variates import ControlVariates, reach
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits
from fedage.common.protocol.control import control_of, counted_round
from fedage.common.protocol.messages import RequestRefused, payload_digest
from fedage.deploy.machine.atomic import write_atomically

CONTROL, NORM_LAYERS = "control-variate", "norm-layers"
"""Rules by which a request is refused here."""
_FILE_KEY = "fedage"
Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class _Kept:
    """What a site keeps.

    `arrays` by the round after which they were so, `asked` the digest of the control variate that came for a round,
    `moved` how far control variates have moved models until the end of a round.
    """

    arrays: Mapping[int, Arrays] = field(default_factory=dict)
    asked: Mapping[int, str] = field(default_factory=dict)
    moved: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OwnTraining:
    """One training at a site, with what is the site's own.

    Parameters
    ----------
    weights
        The model to train from: the round's, with the site's own batch normalisation in its place.
    control
        Control variates; None in other strategies.
    """

    weights: Arrays
    control: ControlVariates | None
    _file: Path
    _kept: _Kept
    _round: int
    _begins: int
    _rate: float
    _durable: bool
    _local: tuple[str, ...]

    def keep(self, trained: Arrays, change: Arrays, *, learnt: tuple[str, ...], steps: int) -> dict[str, Any]:
        """Keep what is the site's own after the training; what the reply says of it.

        Parameters
        ----------
        trained
            The trained model.
        change
            The update as it is sent, within the bounds of a step.
        learnt
            Names of the parameters.
        steps
            Steps of the optimiser.
        """
        if self.control is None and not self._local:
            return {}
        told: dict[str, Any] = {}
        moved = dict(self._kept.moved)
        if self.control is not None:
            of_parameters = {name: change[name] for name in learnt}
            own: Arrays = self.control.own_after(of_parameters, steps=steps, rate=self._rate)
            share = self.control.share(steps=steps, rate=self._rate)
            before = _moved_before(self._kept, self._round)
            moved[self._round] = before + share * reach(self.control.server, steps=steps, rate=self._rate)
            told = {"steps": steps, "control_share": share}
        else:
            own = {name: trained[name] for name in self._local}
        arrays = {number: kept for number, kept in self._kept.arrays.items() if number == self._begins < self._round}
        after = replace(self._kept, arrays={**arrays, self._round: own}, moved=moved)
        _write(self._file, after, durable=self._durable)
        return told


def begin_training(
    work: Work, weights: Arrays, *, name: str, phase: int, phase_round: int, roles: ArrayRoles, limits: StepLimits
) -> OwnTraining:
    """Account for a request's control variate, and find what is the site's own, before anything is computed with it.

    Parameters
    ----------
    name
        The run's and fold's, for the file.
    phase, phase_round
        The phase, and its round from 1.

    Raises
    ------
    RequestRefused
        Rule `control-variate` or `norm-layers` for what does not fit the campaign, or a round of which nothing is kept;
        `another-model` for a second control variate in one round.
    StoreUnavailable
        If the file cannot be read or written.
    """
    training = work.campaign.training
    assert training is not None
    file, durable = account_file(work, name, phase=phase, kind="own"), work.site.rules is not None
    number = work.request.round
    server, counted = control_of(work.payload), counted_round(work.payload, site=work.site.name)
    kept, control, begins = _Kept(), None, 0
    if training.strategy == "scaffold":
        kept = _read(file)
        shapes = {one: np.shape(weights[one]) for one in roles.learnt}
        try:
            check_arrays(server, shapes if server else {})
        except ModelRefused:
            raise RequestRefused(
                CONTROL, "the control variate that came is none of this network's parameters"
            ) from None
        begins = counted or 0
        if begins and (begins >= number or begins not in kept.arrays):
            raise RequestRefused(CONTROL, "this site keeps no control variate of the round that the coordinator says")
        digest = payload_digest({**server, "counted": np.array([begins])})
        if kept.asked.get(number, digest) != digest:
            raise RequestRefused(ANOTHER_MODEL, "this run has brought another control variate for this round before")
        kept = replace(kept, asked={**kept.asked, number: digest})
        _write(file, kept, durable=durable)
        left = max(0.0, limits.path_norm - _moved_before(kept, number))
        control = ControlVariates(server, kept.arrays.get(begins, {}), min(limits.step_norm, left))
    elif server or counted is not None:
        raise RequestRefused(CONTROL, "a control variate came, and the approved campaign file names no such strategy")
    elif roles.local:
        kept = _read(file)
        begins = max((known for known in kept.arrays if known < number), default=0)
        if kept.arrays and not begins and min(kept.arrays) != number:
            raise RequestRefused(NORM_LAYERS, "this site keeps its batch normalisation of later rounds only")
    own = kept.arrays.get(begins, {}) if roles.local else {}
    return OwnTraining(
        weights={**weights, **own},
        control=control,
        _file=file,
        _kept=kept,
        _round=number,
        _begins=begins,
        _rate=learning_rate(training, round_number=phase_round),
        _durable=durable,
        _local=roles.local,
    )


def with_own_norms(
    work: Work, weights: Arrays, *, name: str, phase: int, own_statistics: Callable[[], Arrays]
) -> dict[str, NDArray[Any]]:
    """The finished model with the site's own batch normalisation; the model itself in other strategies.

    Attack: at a site that did not train, means and variances follow from the images of those who are predicted, so one
    patient in whom a crafted model sees something huge moves the predictions of all. Rule: only where the file says so,
    for the model of this run, whose path from the first one is bounded as in training; never for a bundle in a campaign
    (`bundles`). Residual risk: that of training with batch normalisation, within the same bounds.

    Parameters
    ----------
    own_statistics
        Computes the model's statistics on the site's images.

    Raises
    ------
    RequestRefused
        Rule `norm-layers` at a site that has none of its own, where the file does not let it compute them.
    """
    training = work.campaign.training
    if training is None or training.strategy != "fedbn":
        return dict(weights)
    kept = _read(account_file(work, name, phase=phase, kind="own"))
    if not kept.arrays and training.local_norms == "statistics":
        return dict(own_statistics())
    if not kept.arrays:
        raise RequestRefused(
            NORM_LAYERS,
            "batch normalisation stays at the sites that trained, and this one did not: the model cannot predict here",
        )
    return {**weights, **kept.arrays[max(kept.arrays)]}


def _moved_before(kept: _Kept, number: int) -> float:
    return max((far for known, far in kept.moved.items() if known < number), default=0.0)


def _read(path: Path) -> _Kept:
    """What is on disk; nothing before there is a file. Raises `StoreUnavailable` for one that cannot be read."""
    if not path.is_file():
        return _Kept()
    try:
        with named_failures(path, unavailable=StoreUnavailable), safe_open(path, framework="numpy") as file:
            fields = json.loads(file.metadata()[_FILE_KEY])
            arrays: dict[int, dict[str, NDArray[Any]]] = {int(number): {} for number in fields["rounds"]}
            for key in file.keys():  # noqa: SIM118 - no mapping
                number, _, name = key.partition("|")
                arrays[int(number)][name] = file.get_tensor(key)
        return _Kept(
            arrays=arrays,
            asked={int(number): str(digest) for number, digest in fields["asked"].items()},
            moved={int(number): float(far) for number, far in fields["moved"].items()},
        )
    except (SafetensorError, ValueError, KeyError, TypeError):
        raise StoreUnavailable(path, "damaged; restore it from a backup, or start a new run") from None


def _write(path: Path, kept: _Kept, *, durable: bool) -> None:
    """A crash leaves the old state or the new one."""
    fields = {
        "rounds": sorted(kept.arrays),
        "asked": {str(number): digest for number, digest in kept.asked.items()},
        "moved": {str(number): far for number, far in kept.moved.items()},
    }
    arrays = {
        f"{number}|{name}": np.ascontiguousarray(array, dtype=np.float32)
        for number, own in kept.arrays.items()
        for name, array in own.items()
    }
    with named_failures(path, unavailable=StoreUnavailable):
        content = safetensors.numpy.save(arrays, metadata={_FILE_KEY: json.dumps(fields)})
        write_atomically(path, content, durable=durable)
