"""A coordinator, or a site, that does otherwise than secure aggregation has it, against hospitals with real keys.

What is attacked: keys that are put in the place of a site's, seeds and keys of one site together, shares of one sum
passed off as another's, a record out of the update of a single patient, and two campaigns that differ by one site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fedage.client.audit import show
from fedage.client.audit.log import LOG_FILE
from fedage.client.inbox.deployed import DeployedSite
from fedage.common.analyses.base import Analysis
from fedage.common.estimators.configure import exact_analyses
from fedage.common.networks.masked_update import mean_update, update_rows
from fedage.common.networks.roles import ArrayRoles
from fedage.common.networks.steps import StepLimits
from fedage.common.privacy import ring
from fedage.common.protocol.heads import key_to_hex
from fedage.common.protocol.secure import KEYS_AT_ONCE
from fedage.server.record.heads import Heads
from fedage.server.sites import secure_sums, setting_up
from fedage.server.superlink.home import init_home
from tests.attacks.test_gradient_inversion import FEATURES, W, bare_update
from tests.hospitals_at_work import hospital_home
from tests.server.hidden import ONE, Sites, survival_site

TEXT = """
[campaign]
name = "{name}"
purpose = "Try to see behind hidden sums"
seed = 7
sites = ["north", "south", "west"]
wait_s = 1
approval_wait_s = 1
[estimator]
name = "table-ridge"
[estimator.options]
features = ["x*"]
penalty = 4.0
[table]
id = "who"
age = "age"
[privacy]
secure_aggregation = true
minimum_sites = 2
[privacy.site_keys]
"""
STEP, NAMES = "table-preparation", ("north", "south", "west")


@dataclass
class Hospitals(Sites):
    """Three hospitals' homes with keys of their own, and the coordinator that they have pinned."""

    wrong_keys: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        coordinator = init_home(self.folder / "coordinator", hosts=("localhost",))
        homes = [hospital_home(self.folder, name, coordinator=coordinator, seed=k) for k, name in enumerate(NAMES)]
        self.members = [DeployedSite(home) for home in homes]
        self.key, self.heads = coordinator.signing_key(), Heads(self.folder / "heads")
        keys = {site.name: key_to_hex(site.rules.audit.public_key) for site in self.members} | dict(self.wrong_keys)
        lines = "".join(f'{name} = "{key}"\n' for name, key in keys.items())
        self.text = (TEXT.replace("{name}", "attacked") + lines).replace("{", "{{").replace("}", "}}")
        super().__post_init__()

    @property
    def steps(self) -> Mapping[str, Analysis]:
        return exact_analyses(self.campaign, ("x1", "x2", "x3"))

    def ask_features(self) -> secure_sums.Summed:
        return self.ask_at({STEP: {}})

    def close(self) -> None:
        for site in self.members:
            site.rules.close()

    def refused(self, name: str) -> str:
        return " ".join(self.session.troubles.get(name, ()))


Made = Callable[..., Hospitals]


@pytest.fixture
def hospitals(tmp_path: Path) -> Iterator[Made]:
    with ExitStack() as stack:

        def make(**options: Any) -> Hospitals:
            made = Hospitals(tmp_path, **options)
            stack.callback(made.close)
            return made

        yield make


def own_key() -> str:
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.CompressedPoint).hex()


def test_hospitals_that_know_each_other_open_a_sum(hospitals: Made) -> None:
    """What follows is refused for the attack, and not because nothing works."""
    made = hospitals()
    summed = made.ask_features()
    assert summed.contributors[STEP] == NAMES
    assert list(summed.totals) == [STEP]


@pytest.mark.parametrize("stage", ["channels", "keys", "receipts"])
def test_a_coordinator_that_swaps_a_key_is_noticed(
    hospitals: Made, stage: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its own in the place of one site's: among the channels, the keys of a sum, the receipts that one is opened by."""
    made = hospitals()
    real = secure_sums.join_part

    def join(asked: Any) -> Any:
        told = getattr(asked, stage, None)
        if isinstance(told, tuple) and told and type(asked).__name__ in ("AskKeys", "AskMasked", "AskOpen"):
            south = told[1]
            other = {"key": own_key()} if stage == "channels" else {"keys": (own_key(),) * KEYS_AT_ONCE}
            if stage == "receipts":
                other = {"checks": dict.fromkeys(south.checks, 1)}
            asked = asked.model_copy(update={stage: (told[0], south.model_copy(update=other), *told[2:])})
        return real(asked)

    for module in (secure_sums, setting_up):
        monkeypatch.setattr(module, "join_part", join)
    summed = made.ask_features()
    assert summed.totals == {}
    for name in ("north", "west"):
        assert "site-key" in made.refused(name)
        assert "what is sent as south's is not signed by the key that the campaign file has for it" in made.refused(
            name
        )
        rules = {line.entry.rule for line in show(tmp_path / name / LOG_FILE)}
        assert "site-key" in rules, "the hospital's own log says so"


def test_a_key_in_the_file_that_is_not_a_sites_leaves_it_out(hospitals: Made) -> None:
    made = hospitals(wrong_keys={"south": "ab" * 32})
    assert "site-key" in made.session.refused["south"]
    assert "fedage site audit key" in made.session.refused["south"]


def bare_sites(folder: Path, **options: Any) -> Sites:
    return Sites(folder, names="abcd", **options)


def test_seeds_and_keys_of_one_site_are_never_both_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the opening of a sum with b in it, another opening of the same in which b is missing."""
    sites = bare_sites(tmp_path)
    opened = secure_sums._opened

    def twice(session: Any, setting: Any, gathered: Any, missing: Any) -> Any:
        first = opened(session, setting, gathered, missing)
        assert set(first[0]) == set("abcd")
        receipts = {site: receipt for site, receipt in gathered.receipts.items() if site != "b"}
        without = replace(gathered, receipts=receipts)
        second = opened(session, setting, without, ["b"])
        assert second == ({}, False)
        return first

    monkeypatch.setattr(secure_sums, "_opened", twice)
    assert ONE in sites.ask(ONE).totals
    assert "has helped to open it before" in "".join(sites.session.troubles["a"])


def test_shares_of_one_sum_are_not_taken_for_another_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds of a sum that b was missing from, asked for in the opening of a later one that b is in."""
    sites = bare_sites(tmp_path)
    kept: list[dict[str, dict[str, str]]] = []
    opened = secure_sums._opened

    def mixed(session: Any, setting: Any, gathered: Any, missing: Any) -> Any:
        kept.append(dict(gathered.shares))
        if len(kept) == 2:
            gathered.shares["b"] = kept[0]["b"]
        return opened(session, setting, gathered, missing)

    monkeypatch.setattr(secure_sums, "_opened", mixed)
    assert ONE in sites.ask(ONE).totals
    summed = sites.ask(ONE, centre=0.5)
    assert summed.totals == {}
    assert "those of b would be seen" in summed.refused[ONE], "it was asked for again without b"


def test_a_masked_request_answered_twice_is_masked_once(tmp_path: Path) -> None:
    """The same keys under two questions: the words would differ by just what the sums differ by."""
    sites = bare_sites(tmp_path)
    sites.ask(ONE)
    assert sites.session.setting is not None
    sites.session.setting.used -= 1
    assert sites.ask(ONE, centre=0.5).totals == {}
    assert "each serves once" in "".join(sites.session.troubles["a"])


@pytest.mark.parametrize("other", ["site left out", "model renamed", "another run"])
def test_two_analyses_that_differ_by_one_hospital_are_not_both_opened(tmp_path: Path, other: str) -> None:
    """The difference of two sums over sites that differ by one is that one's: over files and runs too."""
    members = [survival_site(name, tmp_path, seed=k) for k, name in enumerate("abcd")]
    first = bare_sites(tmp_path, members=members)
    assert ONE in first.ask(ONE, sites="abcd").totals
    # At a deployed site one account stands for all campaigns; a simulated one's is lent to the second here.
    accounts = {member.name: member.state_dir(first.campaign.digest) / "secure.db" for member in members}
    changed = {"model renamed": ('name = "one"', 'name = "another"')}.get(other, ("seed = 7", "seed = 8"))
    text = first.text if other == "another run" else first.text.replace(*changed)
    second = bare_sites(tmp_path, members=members, text=text, run="r2")
    for member in members:
        folder = member.state_dir(second.campaign.digest)
        if not (folder / "secure.db").exists():
            (folder / "secure.db").write_bytes(accounts[member.name].read_bytes())
    step = "cox:another" if other == "model renamed" else ONE
    summed = second.ask(step, sites="abc")
    assert summed.totals == {}
    assert "by subtraction those of d would be seen" in summed.refused[step]


def test_of_a_masked_update_of_one_patient_no_record_is_recovered() -> None:
    """Of the bare one it is; the mean of the masked ones is what it is without masks."""
    rng = np.random.default_rng(1)
    for trial in range(3):
        row, model, change, invert = bare_update(trial)
        assert np.corrcoef(invert(change), row)[0, 1] > 0.99
        roles, limits = ArrayRoles(learnt=tuple(model)), StepLimits(step_norm=1.0, path_norm=10.0)
        rows = [
            update_rows(model, changed, roles, limits=limits, weight=weight, loss=1.0, sites=2)
            for changed, weight in ((change, 1), ({n: np.zeros_like(a) for n, a in model.items()}, 30))
        ]
        common, own = rng.bytes(ring.SEED_BYTES), [rng.bytes(ring.SEED_BYTES) for _ in range(2)]
        for sign, site, seed in ((1, rows[0], own[0]), (-1, rows[1], own[1])):
            ring.add_mask(site, seed)
            ring.add_mask(site, common, sign=sign)
        start = 2 + sum(model[name].size for name in sorted(model) if name < W)
        masked = rows[0][start : start + model[W].size, 0].view(np.int64).astype(np.float64).reshape(model[W].shape)
        assert abs(np.corrcoef(invert({**change, W: masked}), row)[0, 1]) < 5 / np.sqrt(FEATURES)
        total = rows[0].copy()
        ring.add(total, rows[1])
        for seed in own:
            ring.add_mask(total, seed, sign=-1)
        mean = mean_update(total, model, roles, limits=limits, sites=2)
        assert mean.n == 31
        np.testing.assert_allclose(mean.change[W] * 31, change[W], atol=1e-8)
