"""Processes, settings files and limits that coordinator and site share."""
