"""A whole campaign at sites of two services, none as root: the relay's user opens no image and no file of the agent."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from fedage.client.site.home import SiteHome
from fedage.client.supervisor.status import site_status
from fedage.deploy.demo import run as demo
from fedage.deploy.demo.chest_campaign import DEMO
from fedage.deploy.demo.hospitals import HOSPITALS
from fedage.deploy.demo.phantoms import render_all
from fedage.server.record.results import read_results
from tests.client.agent.other_user import (
    OTHER,
    OWNER,
    as_other,
    environment_for,
    give_to_owner,
    interpreter_for_all,
    needs_another_user,
    open_folder,
    running_as,
)

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

OPEN_ALL = """
import sys
from pathlib import Path
opened = []
for path in map(Path, sys.argv[1:]):
    try:
        list(path.iterdir()) if path.is_dir() else path.open("rb").close()
        opened.append(str(path))
    except PermissionError:
        pass
sys.exit(f"opened {opened}" if opened else 0)
"""


def test_a_campaign_passes_and_the_relays_user_can_open_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_another_user()
    hospitals = HOSPITALS[:2]
    names = [hospital.name for hospital in hospitals]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with open_folder() as root, ExitStack() as running:
        interpreter = interpreter_for_all(root)
        monkeypatch.setenv("LD_LIBRARY_PATH", environment_for(interpreter).get("LD_LIBRARY_PATH", ""))
        folders = demo.Folders(root)
        planted = render_all(folders.images, seed=5, patients_per_site=40, hospitals=hospitals)
        folders.images.chmod(0o700)
        give_to_owner(folders.images)
        text = DEMO.campaign_file(planted, sites=names, seed=5, quick=True)
        text = re.sub(r"(?m)^rounds = .*$", "rounds = 1", text)
        text = re.sub(r"(?m)^local_epochs = .*$", "local_epochs = 1", text)
        campaign = root / "campaign.toml"
        campaign.write_text(text, encoding="utf-8")
        demo._fedage("coordinator", "init", "--home", folders.coordinator, "--host", "localhost")
        address = running.enter_context(demo._coordinator(folders))
        for name in names:
            demo._prepare_site(folders, name, kind=DEMO, address=address, seed=5, campaign=campaign, quick=True)
            file = folders.site(name) / "site.toml"
            file.write_text(file.read_text().replace("# relay_user =", f'relay_user = "{OTHER}"'))
            give_to_owner(folders.site(name))
        folders.logs.mkdir(exist_ok=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "executable", str(interpreter))
            for name in names:
                home = folders.site(name)
                relay_folder = home.with_name(f"{name}-relay")
                told = demo._fedage("site", "split", "--home", home)
                assert told.splitlines() == [
                    f"{relay_folder} ready; run fedage site agent --home {home} as {OWNER}",
                    f"and fedage site node --relay {relay_folder} as {OTHER}",
                ]
                agent, node = (
                    demo._command(["site", "agent", "--home", home]),
                    ["site", "node", "--relay", relay_folder],
                )
                running.enter_context(running_as(OWNER, agent, log=folders.logs / f"{name}-agent.log"))
                running.enter_context(running_as(OTHER, demo._command(node), log=folders.logs / f"{name}-node.log"))
        command = ["campaign", "run", campaign, "--home", folders.coordinator, "--out", root, "--name", "run"]
        done = subprocess.run(demo._command(command), capture_output=True, text=True, timeout=400, check=False)
        logs = "".join(file.read_text() for file in folders.logs.glob("*.log"))
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:] + logs[-2000:]
        results = read_results(root / "results.json")
        assert results.run.status == "finished"
        assert [site.status for site in results.sites] == ["took part"] * 2

        private = [folders.images, *folders.images.rglob("*.dcm"), *folders.images.rglob("*.csv")]
        for name in names:
            private += [path for path in folders.site(name).rglob("*") if not path.is_socket()]
        assert len(private) > 80
        asked = [str(interpreter), "-c", OPEN_ALL, *map(str, private)]
        done = as_other(asked, environment=environment_for(interpreter))
        assert done.returncode == 0, done.stderr
        for name in names:
            said = "\n".join(site_status(SiteHome.load(folders.site(name))))
            assert "agent: healthy, FedAge" in said
            assert f"node: online, Flower's SuperNode for {address}" in said
            assert f"as {OTHER}" in said
            relay_folder = folders.site(name).with_name(f"{name}-relay")
            assert _users_of(f"{relay_folder}/node.key", f"{relay_folder}/run/") == {pwd.getpwnam(OTHER).pw_uid}
            assert _users_of(f"agent.main\0{folders.site(name)}\0") == {pwd.getpwnam(OWNER).pw_uid}
            verified = demo._fedage("site", "audit", "verify", "--home", folders.site(name))
            assert verified.startswith("the audit log is intact")


def _users_of(*words: str) -> set[int]:
    """Whom the processes belong to whose command has one of these words."""
    users = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            told = (entry / "cmdline").read_bytes()
            if any(os.fsencode(word) in told for word in words):
                users.add(entry.stat().st_uid)
        except OSError:
            continue
    return users
