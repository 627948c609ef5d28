"""Differential privacy by the real commands, three hospitals and TLS: of whole sites, and of each patient."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedage.client.consent.ledger import Ledger
from fedage.common.campaign_file import parse_campaign
from fedage.common.estimators.configure import phases_known
from fedage.common.estimators.private_training import site_mechanism
from fedage.common.privacy.accountant import epsilon
from tests.hospitals_at_work import network, record
from tests.server.test_hidden_deployed import CAMPAIGN, NAMES

DELTA = 1e-5


@pytest.mark.slow
def test_whole_sites_and_single_patients_have_privacy_over_the_network(tmp_path: Path) -> None:
    by_patient = CAMPAIGN.replace("validation_share = 0\n", "")
    texts = {
        "sites": by_patient.replace('"sample"', '"client"').replace("clip_norm = 10.0", "clip_norm = 0.05"),
        "patients": by_patient,
    }
    with network(tmp_path, names=NAMES) as work:
        for name, text in texts.items():
            file = work.root / f"{name}.toml"
            file.write_text(text.format(name=name, hidden=""))
            campaign = parse_campaign(file.read_text())
            command, run = work.run(file)
            assert command.process.wait(400) == 0, command.said
            results = record(run)
            assert results.run.status == "finished"
            assert [done.sites for done in results.rounds] == [NAMES] * 2
            spent = {site.name: site.privacy for site in results.sites}
            for site in NAMES:
                told = spent[site]
                assert told is not None
                ledger = Ledger(work.root / site)
                charged = [one for data_set in ledger.data_sets() for one in ledger.by_campaign(data_set, delta=DELTA)]
                own = [one for one in charged if one.digest == campaign.digest]
                ledger.close()
                if name == "sites":  # the coordinator's noise, so that no site pays for it
                    made = site_mechanism(campaign, phases_known(campaign))
                    assert told.epsilon == pytest.approx(epsilon([made] * 2, delta=DELTA))
                    assert told.adjacency == "replace one site's updates by nothing"
                    assert own == []
                else:
                    # Two trainings, the error of the first one's model, the last one's error and bias line.
                    assert [one.charges for one in own] == [5]
                    assert own[0].epsilon == pytest.approx(told.epsilon)
                    assert 7.9 < own[0].epsilon <= 8.0
            rounds = [one.validation_mae_years for one in results.rounds]
            assert (rounds[0] is None) == (name == "sites")
