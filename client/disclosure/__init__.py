"""The last check before anything leaves a site."""
