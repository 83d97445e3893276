"""`python -m calyx_logging.scripts` is `calyx-telemetry`."""

from calyx_logging.scripts.cli import main

if __name__ == "__main__":
    main()
