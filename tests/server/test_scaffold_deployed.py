"""Control variates by the real commands: three hospitals, TLS, and what of them stays where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.hospitals_at_work import network, record
from tests.server.test_hidden_deployed import CAMPAIGN, NAMES


@pytest.mark.slow
def test_control_variates_stay_at_three_hospitals(tmp_path: Path) -> None:
    text = CAMPAIGN.replace("rounds = 2", "rounds = 3")
    text = text[: text.index("[privacy]")]
    models = {}
    with network(tmp_path, names=NAMES) as work:
        for name in ("fedavg", "scaffold"):
            file = work.root / f"{name}.toml"
            file.write_text(text.format(name=name).replace("batch_size = 16", f'batch_size = 16\nstrategy = "{name}"'))
            command, run = work.run(file)
            assert command.process.wait(400) == 0, command.said
            results = record(run)
            assert results.run.status == "finished"
            assert [done.sites for done in results.rounds] == [NAMES] * 3
            models[name] = load_file(run.path / "model.safetensors")
        assert any(not np.array_equal(models["fedavg"][name], models["scaffold"][name]) for name in models["fedavg"])
        own = {name: list((work.root / name).rglob("own-*.safetensors")) for name in NAMES}
        assert [len(files) for files in own.values()] == [1, 1, 1]
        kept = [load_file(files[0]) for files in own.values()]
        assert not any(np.array_equal(kept[0][key], kept[1][key]) for key in kept[0] if key.endswith("weight"))
        assert not list(work.coordinator.root.rglob("own-*"))
