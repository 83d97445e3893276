"""Commands, imported as `calyx_logging.scripts`: one a file, all together `calyx-telemetry`.

Invariant: a command reads its options, calls the wings and prints; what it does can be done from Python as well.

The way: `cli` finds a command's module when the command is named, holds the options that several have, and turns
errors into exit codes; `engines` and `sources` hold the options of where work is done and what is read.
"""
