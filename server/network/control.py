"""What a coordinator asks of its SuperLink: admit a node, start a run, see how it goes, stop it.

Through Flower's own command line with JSON output, which is its stable surface. The app package that a run carries
holds configuration only; the code is what each side installed.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedage.common._version import __version__
from fedage.common.errors import FedAgeError
from fedage.common.processes import executable, flower_environment
from fedage.server.network.home import CoordinatorHome

CONNECTION = "fedage"
SERVER_APP = "fedage.server.app:app"
CLIENT_APP = "fedage.client.app:app"
CAMPAIGN_KEY, DIGEST_KEY, RUN_NAME_KEY = "campaign", "campaign-digest", "run-name"

ConfigValue = bool | int | float | str

_COMMAND_TIMEOUT_S = 120.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_SITE_NAME = re.compile(r"^[a-z0-9][a-z0-9-]{0,62}$")


def write_connection(home: CoordinatorHome, *, port: int) -> None:
    """Tell the `flwr` command where this coordinator's SuperLink listens and which authority to trust."""
    home.flower_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = [
        "[superlink]",
        f'default = "{CONNECTION}"',
        f"[superlink.{CONNECTION}]",
        f'address = "127.0.0.1:{port}"',
        f"root-certificates = {json.dumps(str(home.ca_certificate))}",
    ]
    (home.flower_home / "config.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def register_node(home: CoordinatorHome, public_key: Path, name: str) -> int:
    """Admit a site by its node key and return the node's id. It may connect at once.

    Raises
    ------
    FedAgeError
        If the key or the name is wrong, the key is known already, or the SuperLink is not running.
    """
    if not _SITE_NAME.fullmatch(name):
        raise FedAgeError(f"{name!r} is no site name: allowed are 1 to 63 lower-case letters, digits and hyphens")
    if not public_key.is_file():
        raise FedAgeError(f"{public_key} is not there; give the site's node.pub")
    answer = _flwr(home, "supernode", "register", str(public_key), CONNECTION, "--name", name)
    node_id = int(answer["node-id"])
    home.note_admission(node_id, name)
    return node_id


def submit(
    home: CoordinatorHome,
    *,
    campaign_text: str,
    run_name: str,
    extra_config: Mapping[str, ConfigValue] | None = None,
    server_app: str = SERVER_APP,
    client_app: str = CLIENT_APP,
) -> int:
    """Start a run of a campaign and return Flower's id of it.

    Parameters
    ----------
    home
        The coordinator, whose SuperLink is running.
    campaign_text
        The campaign file. It arrives in the run's configuration as base64 under `campaign`, its SHA-256 under
        `campaign-digest`.
    run_name
        Arrives under `run-name`.
    extra_config
        More entries of the run's configuration.
    server_app, client_app
        Installed objects, as `module:attribute`.

    Raises
    ------
    FedAgeError
        If the SuperLink is not running or refuses.
    """
    content = campaign_text.encode()
    config: dict[str, ConfigValue] = {
        **(extra_config or {}),
        CAMPAIGN_KEY: base64.b64encode(content).decode(),
        DIGEST_KEY: hashlib.sha256(content).hexdigest(),
        RUN_NAME_KEY: run_name,
    }
    with tempfile.TemporaryDirectory(prefix="fedage-") as folder:
        app = Path(folder) / "fedage-campaign"
        app.mkdir()
        text = app_text(config, server_app=server_app, client_app=client_app)
        (app / "pyproject.toml").write_text(text, encoding="utf-8")
        answer = _flwr(home, "run", str(app), CONNECTION)
    return int(answer["run-id"])


def run_status(home: CoordinatorHome, run_id: int) -> str:
    """`pending`, `starting`, `running`, or `finished:` and how: `completed`, `failed`, `stopped`.

    Asked often while a campaign runs, so it is asked in this process; the command takes a second of CPU each time.

    Raises
    ------
    FedAgeError
        If the SuperLink is not running or knows no such run.
    """
    # Imported here: Flower takes half a second, and the other commands of a coordinator need none of it.
    import httpx
    from flwr.proto.control_pb2 import ListRunsRequest
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    client = ControlHttpClient.from_server_address(
        server_address=_address(home),
        insecure=False,
        root_certificates=home.ca_certificate.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )
    try:
        answer = client.ListRuns(ListRunsRequest(run_id=run_id))
    except httpx.HTTPError as error:
        raise FedAgeError(
            f"the SuperLink does not tell the status of run {run_id} ({type(error).__name__}); "
            f"is the SuperLink running (fedage coordinator start --home {home.root})?"
        ) from None
    finally:
        client.close()
    if run_id not in answer.run_dict:
        raise FedAgeError(f"the SuperLink knows no run {run_id}; its database was replaced, or the number is wrong")
    status = answer.run_dict[run_id].status
    return f"{status.status}:{status.sub_status}" if status.sub_status else str(status.status)


def stop_run(home: CoordinatorHome, run_id: int) -> None:
    """Stop a run; one that has ended already stays as it is."""
    if not run_status(home, run_id).startswith("finished"):
        _flwr(home, "stop", str(run_id), CONNECTION)


def app_text(config: Mapping[str, ConfigValue], *, server_app: str, client_app: str) -> str:
    """The `pyproject.toml` of an app package without code."""
    entries = "\n".join(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in config.items())
    return f"""[project]
name = "fedage-campaign"
version = "{__version__}"
description = "A campaign's configuration; the code is the fedage that each side installed"
license = {{ text = "Apache-2.0" }}
dependencies = []

[tool.flwr.app]
publisher = "fedage"

[tool.flwr.app.components]
serverapp = {json.dumps(server_app)}
clientapp = {json.dumps(client_app)}

[tool.flwr.app.config]
{entries}
"""


def _address(home: CoordinatorHome) -> str:
    try:
        settings = tomllib.loads((home.flower_home / "config.toml").read_text(encoding="utf-8"))
        return str(settings["superlink"][CONNECTION]["address"])
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise FedAgeError(
            f"no SuperLink has been started from {home.root}; start it with fedage coordinator start --home {home.root}"
        ) from None


def _flwr(home: CoordinatorHome, *arguments: str) -> dict[str, Any]:
    command = [str(executable("flwr")), *arguments, "--format", "json"]
    what = " ".join(arguments[:2] if arguments[0] == "supernode" else arguments[:1])
    try:
        done = subprocess.run(
            command,
            env=flower_environment(home.flower_home),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
            # Ctrl-C is for the command that called us; this one is short and must not be torn in two.
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise FedAgeError(
            f"the SuperLink did not answer flwr {what} in {_COMMAND_TIMEOUT_S:g} s; see {home.logs / 'superlink.log'}"
        ) from None
    answer = _json_in(done.stdout)
    if done.returncode or not answer.get("success"):
        reason = _plain(str(answer.get("error-message") or done.stderr or done.stdout))
        raise FedAgeError(
            f"flwr {what} failed: {reason}; is the SuperLink running (fedage coordinator start --home {home.root})?"
        )
    return answer


def _plain(output: str) -> str:
    """What a command said, on one line, without colours and without where to read on."""
    lines = (line.strip() for line in _COLOUR.sub("", output).splitlines())
    kept = [line for line in lines if line and "Exit Code:" not in line and not line.startswith("For more information")]
    return " ".join(kept)[-500:].rstrip(".")


def _json_in(output: str) -> dict[str, Any]:
    start = output.find("{")
    try:
        answer = json.loads(output[start:]) if start >= 0 else {}
    except json.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}
