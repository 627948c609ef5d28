"""FedAge for Python users: `import fedage`.

What stands here is what a Python user may rely on: reading and checking a campaign file, simulating it, reading the
record of a run, predicting with its model, and the protocols by which a package brings an estimator or an analysis of
its own. Every other module may change with any release. A name's module is imported when the name is first used, so
that `import fedage` itself loads nothing.

Campaigns and results
    `load_campaign`, `parse_campaign`, `Campaign`, `CampaignErrors`, `simulate`, `read_results`, `Results`,
    `StepResult`, `FedAgeError`

A trained model as a file
    `read_bundle`, `Bundle`, `BundleRefused`, `predict`, `Predicted`

An estimator (entry point group `fedage.estimators`)
    `Estimator`, `Options`, `Input`, `Target`, `Output`, `RoundsPhase`, `ExactPhase`, `RidgePhase`, `Conditions`,
    `Batch`, `Samples`, `Takes`, `Exam`, `Image`, `SampleRefused`, `network_predictor`, `state_to_arrays`

An analysis (entry point group `fedage.analyses`)
    `Definition`, `Step`, `Analysis`, `Cohort`, `Layout`, `Field`, `Cell`, `Statistic`, `Again`, `Done`,
    `NotComputable`, `AnalysisResult`, `Display`, `run_locally`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedage.client.prediction.run import Predicted, predict
    from fedage.common.analyses.base import Again, Analysis, Done, NotComputable, run_locally
    from fedage.common.analyses.definition import Definition, Step
    from fedage.common.bundle.container import Bundle, BundleRefused, read_bundle
    from fedage.common.campaign.types import Campaign
    from fedage.common.campaign_file.parse import parse_campaign
    from fedage.common.errors import FedAgeError
    from fedage.common.estimators.base import (
        Batch,
        Conditions,
        Estimator,
        ExactPhase,
        Input,
        Options,
        Output,
        RoundsPhase,
        Samples,
        Target,
    )
    from fedage.common.estimators.predict import network_predictor
    from fedage.common.estimators.ridge import RidgePhase
    from fedage.common.estimators.takes import Takes
    from fedage.common.networks.arrays import state_to_arrays
    from fedage.common.preprocessing.image import Exam, Image, SampleRefused
    from fedage.common.presentation.blocks import Display
    from fedage.common.record.parts import AnalysisResult
    from fedage.common.statistics.cohort import Cohort
    from fedage.common.statistics.statistic import Cell, Field, Layout, Statistic
    from fedage.common.toml.problems import CampaignErrors
    from fedage.common.version import __version__
    from fedage.deploy.machine.campaign_file import load_campaign
    from fedage.deploy.simulate import simulate
    from fedage.server.record.results import Results, StepResult, read_results

__all__ = [
    "Again",
    "Analysis",
    "AnalysisResult",
    "Batch",
    "Bundle",
    "BundleRefused",
    "Campaign",
    "CampaignErrors",
    "Cell",
    "Cohort",
    "Conditions",
    "Definition",
    "Display",
    "Done",
    "Estimator",
    "ExactPhase",
    "Exam",
    "FedAgeError",
    "Field",
    "Image",
    "Input",
    "Layout",
    "NotComputable",
    "Options",
    "Output",
    "Predicted",
    "Results",
    "RidgePhase",
    "RoundsPhase",
    "SampleRefused",
    "Samples",
    "Statistic",
    "Step",
    "StepResult",
    "Takes",
    "Target",
    "__version__",
    "load_campaign",
    "network_predictor",
    "parse_campaign",
    "predict",
    "read_bundle",
    "read_results",
    "run_locally",
    "simulate",
    "state_to_arrays",
]

_MODULES = {
    "client.prediction.run": ("Predicted", "predict"),
    "common.analyses.base": ("Again", "Analysis", "Done", "NotComputable", "run_locally"),
    "common.analyses.definition": ("Definition", "Step"),
    "common.bundle.container": ("Bundle", "BundleRefused", "read_bundle"),
    "common.campaign.types": ("Campaign",),
    "common.campaign_file.parse": ("parse_campaign",),
    "common.errors": ("FedAgeError",),
    "common.estimators.base": (
        "Batch",
        "Conditions",
        "Estimator",
        "ExactPhase",
        "Input",
        "Options",
        "Output",
        "RoundsPhase",
        "Samples",
        "Target",
    ),
    "common.estimators.predict": ("network_predictor",),
    "common.estimators.ridge": ("RidgePhase",),
    "common.estimators.takes": ("Takes",),
    "common.networks.arrays": ("state_to_arrays",),
    "common.preprocessing.image": ("Exam", "Image", "SampleRefused"),
    "common.presentation.blocks": ("Display",),
    "common.record.parts": ("AnalysisResult",),
    "common.statistics.cohort": ("Cohort",),
    "common.statistics.statistic": ("Cell", "Field", "Layout", "Statistic"),
    "common.toml.problems": ("CampaignErrors",),
    "common.version": ("__version__",),
    "deploy.machine.campaign_file": ("load_campaign",),
    "deploy.simulate": ("simulate",),
    "server.record.results": ("Results", "StepResult", "read_results"),
}
_MODULE_OF = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, from the module that has it."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return sorted(__all__)
