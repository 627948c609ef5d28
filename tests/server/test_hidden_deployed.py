"""Hidden sums and differential privacy by the real commands, three hospitals and TLS: every file of the coordinator."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import SiteHome
from fedage.common.analyses.bias.bias_line import BIAS
from fedage.common.analyses.evaluation.metrics import TEST, VALIDATION
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from tests.as_used import predictions_as_used
from tests.hospitals_at_work import Network, network, record

NAMES = ("north", "south", "west")
CAMPAIGN = """
[campaign]
name = "{name}"
purpose = "Train with privacy for each patient over the network"
seed = 4
sites = ["north", "south", "west"]
wait_s = 60
[estimator]
name = "table-mlp"
[estimator.options]
features = ["x*"]
hidden = [4]
start = "stated"
noise = 0.0
age_scale = "linear"
age_range_years = [30, 80]
[estimator.options.ranges]
"*" = [-1, 6]
[table]
id = "who"
age = "age"
sex = "sex"
[training]
rounds = 2
batch_size = 16
optimiser = "sgd"
learning_rate = 0.01
quorum = 3
round_deadline_s = 120
[validation.fractions]
train = 0.5
validation = 0.25
test = 0.25
[privacy]
mode = "sample"
epsilon = 8.0
delta = 1e-5
clip_norm = 10.0
validation_share = 0
{hidden}
"""


def hidden(work: Network) -> str:
    keys = []
    for name in NAMES:
        told = work.fedage("site", "audit", "key", "--home", work.root / name, log=f"key-{name}")
        assert told.process.wait(60) == 0
        keys.append(told.said.strip())
        assert re.fullmatch(rf'{name} = "[0-9a-f]{{64}}"', keys[-1])
    return "\n".join(["secure_aggregation = true", "[privacy.site_keys]", *keys])


def bare_numbers(work: Network, run: str, digest: str) -> dict[str, list[bytes]]:
    """Each site's own sums of the finished model, as the bytes of those numbers that nothing else could be."""
    found = {}
    for name in NAMES:
        site = DeployedSite(SiteHome.load(work.root / name))
        campaign = site.approved(digest)
        assert campaign is not None
        predicted = predictions_as_used(site, digest, run=run)
        steps = registered(campaign)
        sums = np.concatenate([steps[step].local(predicted, {}).vector for step in (BIAS, VALIDATION)])
        found[name] = [value.tobytes() for value in sums if value != round(value) and abs(value) > 1]
        assert len(found[name]) >= 6
        site.rules.close()
    return found


@contextmanager
def kept(folder: Path) -> Iterator[list[bytes]]:
    """All that ever stands in the files below a folder, looked at again and again while something runs."""
    seen: dict[tuple[str, int, int], bytes] = {}
    content: list[bytes] = []
    done = threading.Event()

    def look() -> None:
        while True:
            last = done.is_set()
            for file in folder.rglob("*"):
                try:
                    stat = file.stat()
                    version = (str(file), stat.st_mtime_ns, stat.st_size)
                    if file.is_file() and version not in seen and stat.st_size < 30_000_000:
                        seen[version] = b""
                        content.append(file.read_bytes())
                except OSError:
                    continue
            if last:
                return
            done.wait(0.1)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield content
    finally:
        done.set()
        thread.join()


@pytest.mark.slow
def test_the_coordinator_never_holds_the_sums_of_one_hospital(tmp_path: Path) -> None:
    with network(tmp_path, names=NAMES) as work:
        held = {}
        for name in ("bare", "hidden"):
            file = work.root / f"{name}.toml"
            file.write_text(CAMPAIGN.format(name=name, hidden=hidden(work) if name == "hidden" else ""))
            digest = parse_campaign(file.read_text()).digest
            with kept(work.coordinator.root) as content:
                command, run = work.run(file)
                assert command.process.wait(400) == 0, command.said
            results = record(run)
            assert results.run.status == "finished"
            assert [done.sites for done in results.rounds] == [NAMES] * 2
            numbers = bare_numbers(work, run.name, digest)
            everything = b"\n".join(content)
            held[name] = {site: sum(number in everything for number in own) for site, own in numbers.items()}
            by_site = [each.by_site for each in results.analyses.values()]
            assert any(by_site) == (name == "bare")
            for site in results.sites:
                assert site.privacy is not None
                assert 0 < (site.privacy.epsilon or 0) <= 8.01
                assert (site.patients is None) == (site.privacy.sampling_rate is None) == (name == "hidden")
            assert results.analyses[TEST].sites == NAMES
    # What is looked for is found where nothing is hidden.
    assert all(held["bare"].values())
    assert held["hidden"] == dict.fromkeys(NAMES, 0)
