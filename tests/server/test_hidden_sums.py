"""Campaigns whose sums are hidden: what they come to, who may leave when, and what is never opened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedage.server.record.results import Results
from tests.server.test_conduct_folds import NETWORK, TABLE, run, tables

PARTS = "\n[validation.fractions]\ntrain = 0.5\nvalidation = 0.25\ntest = 0.25\n"
HIDDEN = "minimum_count = 5\nsecure_aggregation = true\nminimum_sites = 2\n"


def hidden(text: str) -> str:
    return text.replace("minimum_count = 5\n", HIDDEN)


def results_of(found: Results) -> dict[str, object]:
    return {step: each.result and each.result.model_dump() for step, each in found.analyses.items()}


@pytest.mark.parametrize("text", [NETWORK + PARTS, TABLE + PARTS], ids=["network", "ridge"])
def test_hidden_sums_come_to_what_bare_ones_do(tmp_path: Path, text: str) -> None:
    bare = run(tmp_path / "bare", text, tables(tmp_path / "one", holes=False))
    masked = run(tmp_path / "hidden", hidden(text), tables(tmp_path / "other", holes=False))
    assert masked.run.status == "finished", masked.run.reason
    one, other = (load_file(tmp_path / name / "run" / "model.safetensors") for name in ("bare", "hidden"))
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-9)
    assert results_of(masked).keys() == results_of(bare).keys()
