"""A whole `fedage simulate` run against the same model trained by a plain pooled script, wall time.

Both read the same table, train the same network for the same number of passes over the same patients, and predict.
The simulation also runs ten sites, the guard, every analysis and the report. Run:

    PYTHONPATH=. python tests/bench/bench_simulate.py [--runs 3]
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

SITES, PATIENTS, FEATURES, ROUNDS = 10, 200, 40, 10

CAMPAIGN = f"""
[campaign]
name = "bench"
purpose = "Time a simulation against a pooled script"
seed = 1
[estimator]
name = "table-mlp"
[estimator.options]
features = ["x*"]
[table]
id = "patient"
age = "age"
[training]
rounds = {ROUNDS}
local_epochs = 2
batch_size = 32
"""

POOLED = """
import sys, time
import numpy as np
import pandas as pd
from pathlib import Path
from fedage.common.analyses.base import run_locally
from fedage.common.analyses.preparation.table_preparation import INNER_PLACE
from fedage.deploy.machine.campaign_file import load_campaign
from fedage.common.statistics.cohort import Cohort
from fedage.common.estimators.configure import configured
from tests.of_estimators import predict_years, preparation, train_locally, weights_from

campaign, frame = load_campaign(Path(sys.argv[1])), pd.read_csv(sys.argv[2])
features = [name for name in frame.columns if name.startswith("x")]
estimator = configured(campaign, features)
train = np.random.default_rng(0).random(len(frame)) < 0.7
columns = {f"feature:{name}": frame[name].to_numpy(float) for name in features}
inner = np.random.default_rng(1).random(len(frame))  # decides the inner folds of the penalty
cohort = Cohort({
    **columns, "age_years": frame["age"].to_numpy(float), "is_train": train.astype(float), INNER_PLACE: inner,
})
prepared = run_locally(preparation(campaign, features), {"pooled": cohort})
weights = weights_from(estimator, prepared.result, seed=0)
samples = cohort.matrix(estimator.row_columns)
for number in range(1, campaign.training.rounds + 1):
    weights = train_locally(
        estimator, weights, samples[train], cohort["age_years"][train],
        training=campaign.training, round_number=number, rng_seed=number, threads=1, device="cpu",
    ).weights
predicted = predict_years(estimator, weights, samples[~train], device="cpu", threads=1)
print(float(np.abs(predicted - cohort["age_years"][~train]).mean()))
"""


def table(path: Path) -> None:
    """Ages from a linear mixture of features with noise, ten sites with offsets of their own."""
    rng = np.random.default_rng(0)
    n = SITES * PATIENTS
    site = np.repeat(np.arange(SITES), PATIENTS)
    x = rng.normal(size=(n, FEATURES)) + 0.2 * rng.normal(size=(SITES, FEATURES))[site]
    age = 50 + 8 * x @ rng.normal(size=FEATURES) / np.sqrt(FEATURES) + rng.normal(0, 3, n)
    frame = pd.DataFrame(x, columns=[f"x{k:02d}" for k in range(FEATURES)])
    frame.insert(0, "age", np.clip(age, 18, 95))
    frame.insert(0, "hospital", [f"site {k}" for k in site])
    frame.insert(0, "patient", [f"p{k}" for k in range(n)])
    frame.to_csv(path, index=False)


def timed(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    ratios, simulated, pooled = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        campaign, data, script = root / "campaign.toml", root / "table.csv", root / "pooled.py"
        campaign.write_text(CAMPAIGN)
        script.write_text(POOLED)
        table(data)
        for run in range(runs):
            simulate = [sys.executable, "-m", "fedage.deploy", "simulate", str(campaign), "--data", str(data)]
            simulated.append(timed([*simulate, "--site-column", "hospital", "--out", str(root / f"run-{run}")]))
            pooled.append(timed([sys.executable, str(script), str(campaign), str(data)]))
            ratios.append(simulated[-1] / pooled[-1])
    print(f"{platform.processor() or platform.machine()}, {SITES} sites × {PATIENTS} patients, {ROUNDS} rounds")
    print(f"fedage simulate  median {statistics.median(simulated):6.1f} s")
    print(f"pooled script    median {statistics.median(pooled):6.1f} s")
    print(f"ratio            median {statistics.median(ratios):6.2f}  (min {min(ratios):.2f}, max {max(ratios):.2f})")


if __name__ == "__main__":
    main()
