"""Age from ABIDE I at hospitals that had no part in the model: trained at five, validated at the other five.

What the benchmarks guide says of it; the runs go through the real server and site code in this process.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from fedage.common.estimators.table import FEATURE
from tests.deploy.simulating import simulated
from tests.deploy.test_abide import ABIDE, CAMPAIGNS

VALIDATING = ("caltech", "leuven", "pitt", "ucla", "usm")
MAE_YEARS, MODEL = 4.244, "model.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(not ABIDE.is_file(), reason="../shared/data/abide1 is not beside the repository"),
]


def test_five_hospitals_train_and_five_validate(tmp_path: Path) -> None:
    text = (CAMPAIGNS / "abide1-ridge.toml").read_text(encoding="utf-8")
    names = ", ".join(f'"{name}"' for name in VALIDATING)
    text = text.replace("folds = 5", f"folds = 5\nfinal_model = true\nsites = [{names}]")
    run = simulated(tmp_path, text, data=ABIDE, site_column="SITE")
    step = run.results.external["evaluation:test"]
    assert step.sites == VALIDATING
    assert step.result is not None
    table = pd.read_csv(ABIDE)
    outside = table[table["SITE"].str.lower().isin(VALIDATING) & (table["DX_GROUP"] == -1)]
    model = load_file(run.folder / MODEL)
    with safe_open(run.folder / MODEL, framework="numpy") as file:
        columns = [name.removeprefix(FEATURE) for name in json.loads(file.metadata()["fedage"])["row"]]
    x = outside[columns].to_numpy(dtype=float)
    used = model["sds"] > 0
    z = (x[:, used] - model["means"][used]) / model["sds"][used]
    predicted = np.exp(model["intercept"][0] + z @ model["coefficients"][used]) + 3.0
    age = outside["AGE_AT_SCAN"].to_numpy()
    found = step.result.model_dump()
    assert found["n"] == age.size
    assert found["mae_years"] == pytest.approx(np.abs(predicted - age).mean(), abs=1e-6)
    assert found["mae_years"] == pytest.approx(MAE_YEARS, abs=5e-4)
    training = table[~table["SITE"].str.lower().isin(VALIDATING) & (table["DX_GROUP"] == -1)]["AGE_AT_SCAN"]
    assert found["mae_years"] < np.abs(age - training.mean()).mean()
