"""`site.toml`'s tables: read, refused with every mistake, and written back as they were."""

from pathlib import Path

import pytest

from fedage.client.site.home import SiteConfig
from fedage.client.site.mapping import Mapped
from fedage.common.errors import FedAgeError
from fedage.deploy.machine.settings import read_settings, settings_text

HEAD = 'name = "north"\ncoordinator = "example.org:8443"\n'
WHOLE = (
    HEAD
    + """
outcomes = "/data/outcomes.csv"
layout = "bids"

[outcome_columns]
id = "MRN"
[outcome_columns.columns]
time_years = { column = "fu days", divide_by = 365.25 }
event = { column = "status", values = { dead = 1, alive = 0 } }
grade = "Grade"

[table]
path = "/data/brains.csv"
id = "subject"
age = "Alter"
male = 1.0
missing = [-9999]
columns = { "left \\"hippocampus\\"" = "lh", dx = { column = "group", values = { control = 1 }, others = 0 } }
leave_out = ["*_qc"]
"""
)


def read(tmp_path: Path, text: str) -> SiteConfig:
    (tmp_path / "site.toml").write_text(text)
    return read_settings(tmp_path / "site.toml", SiteConfig, mend="make it")


def test_tables_are_read_and_written_back(tmp_path: Path) -> None:
    config = read(tmp_path, WHOLE)
    assert config.outcome_columns is not None
    assert config.table is not None
    assert config.outcome_columns.columns["time_years"] == Mapped(column="fu days", divide_by=365.25)
    assert config.outcome_columns.columns["grade"] == "Grade"
    assert (config.table.male, config.table.missing, config.table.use) == (1.0, (-9999.0,), ("*",))
    assert read(tmp_path, settings_text(config, heading="again")) == config
    plain = read(tmp_path, HEAD)
    assert read(tmp_path, settings_text(plain, heading="again")) == plain
    assert (plain.outcome_columns, plain.table) == (None, None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[table]\npath = "brains.csv"\nid = "x"\n', r"table\.path = \"brains\.csv\".*absolute path"),
        ('[table]\npath = "/brains.csv"\n', r"table\.id"),
        ('[outcome_columns]\nide = "x"\n', r"outcome_columns\.ide.*id"),
        ('[outcome_columns.columns]\n"fu days " = "x"\n', r"fu days "),
        ('[outcome_columns.columns.event]\ncolumn = "x"\ndivide_by = 0\n', r"divide_by = 0"),
    ],
)
def test_mistakes_name_key_and_value(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(FedAgeError, match=says):
        read(tmp_path, HEAD + text)
