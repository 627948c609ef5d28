"""A column is one column at all sites, however its name's characters are stored; and digits are those from 0 to 9."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fedage.client.cohort.table.outcomes import read_outcomes
from fedage.client.cohort.table.read import read_frame
from fedage.client.cohort.table.sites import read_site_tables
from fedage.client.site.mapping import TableSource
from fedage.common.campaign_file import parse_campaign
from fedage.common.errors import FedAgeError

SPELLINGS = {
    "composed and decomposed": ("Gr\u00f6\u00dfe", "Gro\u0308\u00dfe"),
    "e with an accent": ("d\u00e9c\u00e8s", "de\u0301ce\u0300s"),
    "a wide name": ("tumour 1", "\uff54\uff55\uff4d\uff4f\uff55\uff52 \uff11"),
    "micro and mu": ("volume \u00b5l", "volume \u03bcl"),
    "angstrom and letter": ("\u212bkesson", "\u00c5kesson"),
    "hangul": ("\ub098\uc774", unicodedata.normalize("NFD", "\ub098\uc774")),
}
FILE = """
[campaign]
name = "names"
purpose = "One column under two spellings"
seed = 1
[table]
id = "who"
age = "{age}"
[survival]
table_times_years = [1, 2]
[[survival.models]]
name = "one"
covariates = ["{name}"]
[privacy]
minimum_count = 1
"""


def table(name: str, *, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 30
    return pd.DataFrame(
        {
            "who": [f"p{seed}-{k}" for k in range(n)],
            "\u00e2ge": rng.uniform(40, 80, n).round(1),
            "time_years": rng.uniform(0, 5, n).round(2),
            "event": rng.integers(0, 2, n),
            name: rng.normal(size=n),
        }
    )


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS.keys())
@pytest.mark.parametrize("asked", [0, 1])
def test_two_sites_and_a_file_that_spell_it_otherwise_mean_one_column(
    tmp_path: Path, spellings: tuple[str, str], asked: int
) -> None:
    one, other = spellings
    assert one != other
    for site, (seed, name) in {"north": (1, one), "south": (2, other)}.items():
        (tmp_path / site).mkdir()
        table(name, seed=seed).to_csv(tmp_path / site / "table.csv", index=False)
    campaign = parse_campaign(FILE.format(name=spellings[asked], age=("\u00e2ge", "a\u0302ge")[asked]))
    assert campaign.survival is not None
    (covariate,) = campaign.survival.models[0].covariates
    found = read_site_tables(tmp_path, campaign, site_column=None).sites
    assert set(found) == {"north", "south"}
    for site in found.values():
        assert np.isfinite(site.columns[covariate]).all()
        assert np.isfinite(site.columns["age_years"]).all()


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_outcomes_and_settings_have_the_same_form(tmp_path: Path, spellings: tuple[str, str]) -> None:
    one, other = spellings
    table(one, seed=1).rename(columns={"who": "patient_id"}).to_csv(tmp_path / "outcomes.csv", index=False)
    source = TableSource(path="/data/table.csv", id=other, leave_out=(other,))
    assert source.id == source.leave_out[0]
    read = read_outcomes(tmp_path / "outcomes.csv")
    assert all(source.id in values for values in read.values.values())
    assert list(read_frame(tmp_path / "outcomes.csv").columns)[-1] == source.id


@pytest.mark.parametrize("spellings", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_both_spellings_in_one_table_are_one_name_twice(tmp_path: Path, spellings: tuple[str, str]) -> None:
    frame = table(spellings[0], seed=1).rename(columns={"who": "patient_id"})
    frame[spellings[1]] = 1.0
    frame.to_csv(tmp_path / "t.csv", index=False)
    for read in (read_frame, read_outcomes):
        with pytest.raises(FedAgeError, match=r"places 5 and 6.*rename"):
            read(tmp_path / "t.csv")


@pytest.mark.parametrize("cell", ["\uff11\uff12", "\u0664\u0665.5", "\uff0d\uff13", "\u0967\u0968", "1\uff12"])
def test_other_digits_are_refused_by_column_and_not_counted_as_missing(tmp_path: Path, cell: str) -> None:
    frame = table("x", seed=1)
    frame["x"] = frame["x"].round(2).astype(str)
    frame.loc[3, "x"] = cell
    (tmp_path / "north").mkdir()
    frame.to_csv(tmp_path / "north" / "table.csv", index=False)
    with pytest.raises(FedAgeError, match=r"'x'.*digits of another script|'x'.*digits") as refused:
        read_site_tables(tmp_path, parse_campaign(FILE.format(name="x", age="\u00e2ge")), site_column=None)
    assert "digits 0 to 9" in str(refused.value)
    assert cell not in str(refused.value)
