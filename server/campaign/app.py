"""The ServerApp that Flower starts for a run: reads the campaign from the run's configuration and conducts it."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Conduct the campaign that this run carries.

    Raises
    ------
    RuntimeError
        If the run carries no campaign file, or the coordinator's home is not known.
    RunRefused
        If the run was given up, has begun before, or nobody waits for it.
    """
    # Imported here so that building the app package stays light.
    from fedage.common.campaign_file import parse_campaign
    from fedage.deploy.machine.campaign_file import load_campaign
    from fedage.deploy.machine.simulation import ENGINE_ENDED, current_job
    from fedage.server.campaign.conduct import conduct
    from fedage.server.campaign.run_so_far import Place
    from fedage.server.record.heads import Heads
    from fedage.server.record.run_folder import RunFolder
    from fedage.server.sites.session import CampaignFailed
    from fedage.server.superlink.grid import PollingGrid, StoppableGrid, Stopped
    from fedage.server.superlink.home import CoordinatorHome

    if (job := current_job()) is not None:
        simulated = load_campaign(job.campaign)
        place = Place(
            folder=job.folder,
            run=job.run,
            environment="simulation",
            guard=simulated.simulation.guard,
            sites_there=len(job.sites),
        )

        def stop() -> bool | str:
            reason = job.stopped()
            if reason == ENGINE_ENDED:  # nobody stopped the run: it failed
                raise CampaignFailed(ENGINE_ENDED)
            return reason

        stoppable = StoppableGrid(grid, stop=stop)
        conduct(PollingGrid(stoppable, poll_s=0.02), simulated, place, key=None, admitted=None)
        return
    encoded = context.run_config.get("campaign")
    name = context.run_config.get("run-name")
    if not isinstance(encoded, str) or not isinstance(name, str):
        raise RuntimeError("the run carries no campaign file; start it with fedage campaign run")
    campaign = parse_campaign(base64.b64decode(encoded).decode())
    home_path = os.environ.get("FEDAGE_COORDINATOR_HOME")
    if not home_path:
        raise RuntimeError("FEDAGE_COORDINATOR_HOME is not set; start the SuperLink with fedage coordinator start")
    home = CoordinatorHome.load(Path(home_path))
    run = RunFolder(home.run_folder(campaign.campaign.name, name))
    place = Place(folder=run.path, run=name, environment="deployment", guard=True)
    with run.conducting():
        try:
            conduct(
                PollingGrid(StoppableGrid(grid, stop=run.given_up)),
                campaign,
                place,
                key=home.signing_key(),
                admitted=home.admitted_now(),
                heads=Heads(home.heads),
            )
        except Stopped as stopped:
            # An ordinary exception: Flower then tells the SuperLink at once that the run is over.
            raise CampaignFailed(str(stopped)) from None
