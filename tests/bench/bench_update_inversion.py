"""How many training patients' records follow from a few updates of `table-mlp` of one gradient step each.

No crafted layer and no bend: the coordinator moves the model inside the bounds and solves, by least squares from random
starting points, for the patients whose gradients sum to the updates (Levenberg-Marquardt; records in the order of
whichever start found them). What it finds is what the guide states for model updates.

    PYTHONPATH=. python tests/bench/bench_update_inversion.py --rounds 5 --patients 40
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from tests.attacks import table_attacker
from tests.attacks.table_attacker import FEATURES, Attacker

W, B, OUT, SHIFT = "correction.0.weight", "correction.0.bias", "correction.2.weight", "correction.2.bias"
RATE, LEVEL, SD = 1e-3, 50.0, 17.0
Vector = torch.Tensor


def told(attacker: Attacker, *, rounds: int) -> tuple[list[dict[str, Vector]], Vector, np.ndarray]:
    """Models sent, the updates that came back over the rate, and the patients' features in the model's SDs (n, p)."""
    assert attacker.site.found.samples is not None
    x, chance = attacker.site.found.samples["row"], np.random.default_rng(1)
    sums = attacker.crafted_sums(x.mean(axis=0), x.std(axis=0), age_mean=LEVEL, age_sd=SD)
    model, run = attacker.first(sums), attacker.new_run()
    models, updates = [], []
    for number in range(1, rounds + 1):
        reply, update, _ = attacker.send(model, run=run, round_number=number, sums=sums if number == 1 else None)
        assert reply.status == "ok", reply.reason
        assert not reply.info["clipped"]
        if number > 1:
            models.append({name: torch.tensor(model[name], dtype=torch.float64) for name in (W, B, OUT, SHIFT)})
            parts = [-update[name].ravel().astype(np.float64) / RATE for name in (W, B, OUT, SHIFT)]
            updates.append(torch.tensor(np.concatenate(parts)))
        steps = {W: 0.9, B: 0.2, OUT: 0.3, SHIFT: 0.1}
        for name, length in steps.items():
            step = chance.normal(size=model[name].shape)
            model = {**model, name: (model[name] + length * step / np.linalg.norm(step)).astype(np.float32)}
    z = (x[attacker.part("is_train")] - model["means"]) * model["units"]
    return models, torch.cat(updates), z


def gradients(models: list[dict[str, Vector]], z: Vector, t: Vector) -> Vector:
    """Of the mean squared error in years, at each model, for patients z (n, p) of ages `LEVEL` + `SD` · t (n,)."""
    parts = []
    for model in models:
        a = z @ model[W].T + model[B]
        below = 0.5 * (1 + torch.erf(a / 2**0.5))
        hidden, slope = a * below, below + a * torch.exp(-a * a / 2) / (2 * torch.pi) ** 0.5
        error = 2 * SD * SD / len(t) * (hidden @ model[OUT][0] + model[SHIFT] - t)
        at_units = error[:, None] * slope * model[OUT]
        parts += [(at_units.T @ z).ravel(), at_units.sum(0), error @ hidden, error.sum()[None]]
    return torch.cat(parts)


def solved(residual: Callable[[Vector], Vector], start: Vector, *, steps: int = 150) -> tuple[Vector, float]:
    """Levenberg-Marquardt."""
    jacobian, v, damping = torch.func.jacfwd(residual), start, 0.1
    f = residual(v)
    for _ in range(steps):
        j = jacobian(v)
        normal, before = j.T @ j, float(f @ f)
        for _ in range(10):
            move = torch.linalg.solve(normal + damping * torch.diag(normal.diagonal() + 1e-12), -(j.T @ f))
            after = residual(v + move)
            if float(after @ after) < before:
                v, f, damping = v + move, after, max(damping / 5, 1e-12)
                break
            damping *= 4
        if before - float(f @ f) <= 1e-9 * before:
            break
    return v, float(f @ f)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--patients", type=int, default=64)
    parser.add_argument("--starts", type=int, default=3)
    asked = parser.parse_args()
    # Of mean squared errors in years, so that the rate times the gradient is short of a step.
    table_attacker.FILE = table_attacker.FILE.replace("learning_rate = 0.2", f"learning_rate = {RATE / 10}").replace(
        "penalty = 10.0", "penalty = 10.0\nnoise = 0.0"
    )
    with tempfile.TemporaryDirectory() as folder:
        attacker = Attacker(Path(folder), patients=asked.patients, rounds=max(asked.rounds, 2))
        models, updates, z = told(attacker, rounds=asked.rounds)
    updates, n = updates * 10, len(z)
    scale = updates.abs().mean()

    def residual(v: Vector) -> Vector:
        return (gradients(models, v[: n * FEATURES].reshape(n, FEATURES), v[n * FEATURES :]) - updates) / scale

    for start in range(asked.starts):
        torch.manual_seed(start)
        found, left = solved(residual, torch.randn(n * (FEATURES + 1), dtype=torch.float64))
        records = found[: n * FEATURES].reshape(n, FEATURES).numpy()
        near = np.abs(z[:, None] - records[None]).max(axis=2).min(axis=1) < 0.05
        print(f"start {start}: whole records of {near.sum()} of {n} training patients, residual {left:.3g}", flush=True)


if __name__ == "__main__":
    main()
