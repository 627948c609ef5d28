"""The ClientApp that Flower loads, named by every app package: `fedage.client.node.app:app`."""

from fedage.client.node.relay import SiteApp

app = SiteApp()
