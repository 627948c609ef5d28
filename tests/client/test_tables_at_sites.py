"""A table campaign at three deployed sites: approved, frozen, and with the sums of a simulation of the same table."""

from pathlib import Path

import pytest

from fedage.client.cli.index import index_site
from fedage.client.cohort.selection.table_cohorts import table_cohort
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.inbox.deployed import DeployedSite
from fedage.client.site.home import init_site
from fedage.common.analyses.base import Done, run_locally
from fedage.common.analyses.plan import registered
from fedage.common.campaign_file import parse_campaign
from fedage.common.protocol.messages import ANALYSE, join_iterates
from fedage.server.superlink.home import CoordinatorHome, init_home
from tests.client.cohort.store.test_tables import ANALYSES, TRAINED, frame, same
from tests.client.hospital import Hospital
from tests.of_estimators import preparation


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> CoordinatorHome:
    return init_home(tmp_path_factory.mktemp("c"), hosts=("localhost",))


def site(folder: Path, name: str, of: CoordinatorHome) -> DeployedSite:
    """A home with its hospital's rows indexed, made as an administrator makes it."""
    folder.mkdir()
    rows = frame()[frame()["hospital"] == name]
    rows.to_csv(folder / "table.csv", index=False)
    home = init_site(
        folder / "home",
        name=name,
        coordinator="localhost:8443",
        ca_certificate=of.ca_certificate,
        coordinator_public_key=of.signing_public_key,
    )
    with (home.root / "site.toml").open("a") as settings:
        settings.write(f'[table]\npath = "{folder / "table.csv"}"\nid = "who"\nleave_out = ["hospital"]\n')
    assert index_site(home.root).patients == len(rows)
    return DeployedSite.load(home.root)


def test_three_deployed_sites_give_a_simulation_s_results(tmp_path: Path, coordinator: CoordinatorHome) -> None:
    campaign = parse_campaign(ANALYSES)
    frame().to_csv(tmp_path / "whole.csv", index=False)
    simulated = {
        name: table_cohort(table, campaign).cohort
        for name, table in read_site_tables(tmp_path / "whole.csv", campaign, site_column="hospital").sites.items()
    }
    sites = {name: site(tmp_path / name, name, coordinator) for name in "abc"}
    deployed = {}
    for name, one in sites.items():
        approved = one.rules.approve(campaign)
        found = one.cohort(campaign)
        assert set(found.keys) == set(approved.snapshot.patients)
        assert found.cohort.n == simulated[name].n
        deployed[name] = found.cohort
    computed = 0
    for analysis in registered(campaign).values():
        mine, theirs = run_locally(analysis, simulated), run_locally(analysis, deployed)
        assert type(mine) is type(theirs)
        if isinstance(mine, Done) and isinstance(theirs, Done):
            same(dict(mine.result), dict(theirs.result))
            computed += 1
    assert computed >= 5


@pytest.mark.parametrize("trains", [True, False])
def test_a_site_that_trains_nothing_gives_no_sums_that_make_a_model(
    tmp_path: Path, coordinator: CoordinatorHome, trains: bool
) -> None:
    site(tmp_path / "a", "a", coordinator).rules.close()
    hospital = Hospital(tmp_path / "a" / "home", coordinator.signing_key(), campaign=parse_campaign(TRAINED))
    kinds = '"describe", "evaluate", "analyse"' + (', "train"' if trains else "")
    hospital.policy(f"[requests]\nkinds = [{kinds}]\n[disclosure]\nminimum_count = 2\n")
    hospital.site.rules.approve(hospital.campaign)
    found = hospital.site.cohort(hospital.campaign)
    first = preparation(hospital.campaign, found.features)
    assert first is not None
    reply, sums = hospital.send(hospital.request(ANALYSE), join_iterates({first.name: first.first()}))
    assert reply.status == "ok"
    assert (first.name in sums) == trains, reply.info
    assert [held["rule"] for held in reply.info["withheld"].values()] == ([] if trains else ["message-kind"])
    assert [held.rule for held in hospital.last().entry.withheld] == ([] if trains else ["message-kind"])
    hospital.must_be_intact(reply)
