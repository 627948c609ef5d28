"""The ClientApp that Flower loads, named by every app package: `fedage.client.app:app`."""

from fedage.client.relay import SiteApp

app = SiteApp()
