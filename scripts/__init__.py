"""Commands, imported as `calyx_logging.scripts`: one a file, all together `calyx-telemetry`."""
