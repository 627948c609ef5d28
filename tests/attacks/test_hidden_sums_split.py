"""A coordinator that tells sites different things of who is there: without any site's help it is to open nobody's sums.

To the one site it says that all are there, so that it gives what opens its own mask; to the others that this one is
missing, so that they give its key. With both, the masked words that it has sent are open.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedage.common.privacy import ring
from fedage.common.privacy.masked_statistic import summed_statistic
from fedage.common.protocol.messages import SECURE
from fedage.common.protocol.secure import (
    MASKED,
    AskOpen,
    TellOpen,
    join_part,
    own_seed,
    pair_seed,
)
from fedage.server.sites import opening, secure_sums
from fedage.server.sites.opening import Opening
from tests.server.hidden import ONE, Sites, iterate_of


class Split:
    """Opens with two views: `victim` hears that everybody is there, the others in `told_missing` that it is not."""

    def __init__(self, victim: str, told_missing: str) -> None:
        self.victim, self.told_missing = victim, told_missing
        self.words: dict[str, Any] = {}
        self.victims_sums: np.ndarray | None = None

    def keep(self, monkeypatch: pytest.MonkeyPatch) -> None:
        take = secure_sums._Gathered.take

        def taken(gathered: Any, answer: Any) -> Any:
            if answer.site == self.victim and MASKED + ONE in answer.payload:
                self.words[ONE] = np.array(answer.payload[MASKED + ONE])
            return take(gathered, answer)

        monkeypatch.setattr(secure_sums._Gathered, "take", taken)
        monkeypatch.setattr(secure_sums, "_opened", self.opened)

    def opened(self, session: Any, setting: Any, gathered: Any, _missing: Any) -> tuple[dict[str, TellOpen], bool]:
        def asked(site: str, *, there: str, gone: str) -> AskOpen:
            receipts = tuple(gathered.receipts[name] for name in sorted(there))
            shares = {of: told[site] for of, told in gathered.shares.items() if of in there and site in told}
            keys = {of: setting.shares[of][site] for of in gone if site in setting.shares[of]}
            return AskOpen(receipts=receipts, shares=shares, missing=keys)

        everybody = "".join(sorted(gathered.receipts))
        others = everybody.replace(self.victim, "")
        each = {
            site: asked(site, there=others, gone=self.victim) if site in self.told_missing
            else asked(site, there=everybody, gone="")
            for site in everybody
        }  # fmt: skip
        answers = session.ask(SECURE, {}, each={s: join_part(a) for s, a in each.items()}, sites=sorted(each))
        told = secure_sums.readable_parts(session, answers, TellOpen)
        self.victims_sums = self.attacked(setting, gathered, told)
        return told, True

    def attacked(self, setting: Any, gathered: Any, told: dict[str, TellOpen]) -> np.ndarray | None:
        """The victim's own sums, if its key and its own mask's seed can both be had."""
        number, victim = gathered.asked.number, self.victim
        known = Opening(
            keys={site: keys.keys[number] for site, keys in setting.keys.items()},
            channels=setting.channels,
            seed=setting.seed,
            receipts={site: r for site, r in gathered.receipts.items() if site != victim},
            missing=(victim,),
            told=told,
        )
        found = opening._Found()
        opening._keys_of_missing(known, found, blocks={ONE: np.zeros((1, 2), np.uint64)})
        seed = opening._seed(
            Opening(**{**vars(known), "receipts": gathered.receipts, "missing": ()}), found, victim, ONE
        )
        own = told[victim].own.get(ONE) if victim in told else None
        if not found.secrets or seed is None or own is None:
            return None
        rows = self.words[ONE]
        ring.add_mask(rows, own_seed(seed, own), sign=-1)
        for (_, site), secret in found.secrets.items():
            sign = 1 if victim < site else -1
            of = gathered.receipts[victim].of
            ring.add_mask(rows, pair_seed(secret, of, block=ONE, use="mask"), sign=-sign)
        return rows


@pytest.mark.parametrize(
    ("names", "told_missing"),
    [("abcd", "acd"), ("abcde", "acd"), ("abcde", "acde"), ("abcdef", "acde"), ("abcdefg", "acde"), ("abc", "ac")],
)
def test_two_views_open_no_sites_sums(
    names: str, told_missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = Sites(tmp_path, names=names)
    split = Split("b", told_missing)
    split.keep(monkeypatch)
    sites.ask(ONE)
    if split.victims_sums is not None:
        layout = sites.steps[ONE].layout(iterate_of(None))
        got = summed_statistic(layout, split.victims_sums, sites=len(names))
        own = sites.expected(ONE, "b")
        np.testing.assert_allclose(got, own)
    assert split.victims_sums is None, "the coordinator alone has opened one hospital's sums"
