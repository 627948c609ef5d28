import subprocess
import sys

import pytest
from pydantic import ValidationError

from fedage.common import estimators


def test_importing_the_registry_loads_no_torch():
    code = "import sys, fedage.common.estimators as e; e.names(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("age-ensemble", {"features": ["a", "b"]}),
        ("brain-clinical2d", {}),
        ("brain-contrastive", {}),
        ("brain-outcome", {"outcome": "risk"}),
        ("brain-patches", {}),
        ("brain-sfcn", {}),
        ("brain-tsan", {}),
        ("breast-4view", {}),
        ("breast-outcome", {"outcome": "risk"}),
        ("chest-ca", {}),
        ("cortex-vnn", {"features": ["a", "b"]}),
        ("table-mlp", {"features": ["a", "b"]}),
        ("table-ridge", {"features": ["a", "b"]}),
    ],
)
def test_every_registered_name_is_its_class_own_name(name, options):
    assert estimators.estimator_class(name).name == name
    assert estimators.make(name, options).shapes()


def test_the_names_above_are_all_there_are():
    # In a process of its own: other tests put packages with estimators on this one's path.
    code = "import fedage.common.estimators as e; print(*e.names())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split() == [
        "age-ensemble",
        "brain-clinical2d",
        "brain-contrastive",
        "brain-outcome",
        "brain-patches",
        "brain-sfcn",
        "brain-tsan",
        "breast-4view",
        "breast-outcome",
        "chest-ca",
        "cortex-vnn",
        "table-mlp",
        "table-ridge",
    ]


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(estimators.UnknownEstimator, match=r"'chest-cb' is not registered; allowed are .*chest-ca"):
        estimators.make("chest-cb", {})


def test_all_wrong_options_are_reported_at_once():
    with pytest.raises(ValidationError) as caught:
        estimators.make("chest-ca", {"norm": "layer", "image_size": 100, "depth": 50, "augment": 1})
    assert {error["loc"] for error in caught.value.errors()} == {("norm",), ("image_size",), ("depth",), ("augment",)}
