"""Run by Python at the start of every process below `calyx-telemetry run`, which puts this folder on PYTHONPATH.

Sets up the recorder, then gives way to the `sitecustomize` of the environment, if it has one.
"""


def _begin() -> None:
    import os
    import sys

    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - before the program has imported pathlib
    sys.path[:] = [place for place in sys.path if os.path.abspath(place) != here]  # noqa: PTH100
    try:
        from calyx_logging.harness.reach import begin
    except ImportError as error:
        print(f"calyx-logging: not recorded: {sys.executable} cannot import it ({error})", file=sys.stderr)
    else:
        begin()
    this = sys.modules.pop("sitecustomize")
    try:
        __import__("sitecustomize")  # the environment's own
    except ImportError:
        sys.modules["sitecustomize"] = this


_begin()
