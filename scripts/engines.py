"""Options for where a command's work is done, shared by all commands: `--jobs`, `--engine` and `--master`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from calyx_logging.query.executors import Engine, Here, Pool

__all__ = ["engine_of", "engine_options", "jobs_option"]

_F = TypeVar("_F", bound=Callable[..., Any])


def jobs_option(function: _F) -> _F:
    """Add `--jobs`."""
    jobs = click.option(
        "--jobs", type=click.IntRange(1, 1024), metavar="N", help="Number of worker processes. Default: one per core."
    )
    return jobs(function)


def engine_options(function: _F) -> _F:
    """Add `--jobs`, `--engine` and `--master`."""
    engine = click.option(
        "--engine",
        "engine_name",
        type=click.Choice(["local", "spark"]),
        default="local",
        help="Where the work is done: on this machine, or on a Spark cluster whose workers reach the same paths (needs "
        'the extra "spark"). Default: local.',
    )
    master = click.option("--master", metavar="URL", help="The cluster, such as spark://host:7077. Default: local[*].")
    return jobs_option(engine(master(function)))


def engine_of(name: str, master: str | None, jobs: int | None) -> Engine:
    """Return the engine that the options name.

    Raises:
        ConfigError: the extra is not installed, or there is no such cluster.
    """
    if name == "spark":
        from calyx_logging.query.spark import SparkEngine, session

        return SparkEngine(session(master or "local[*]"))
    if master is not None:
        raise click.UsageError("--master is for --engine spark")
    return Here() if jobs == 1 else Pool(jobs)
