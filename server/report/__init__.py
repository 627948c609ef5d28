"""The report: one HTML file that draws a record and needs nothing else."""

from fedage.server.report.render import render_report

__all__ = ["render_report"]
