"""The version: the one place that names it (setup.cfg reads it here)."""

__version__ = "0.1.0"
