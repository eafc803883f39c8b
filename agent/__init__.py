"""The agent of a hearing room: it watches, judges, reports, and never records."""

__version__ = "0.1.0"
