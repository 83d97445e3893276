"""The one thing that setup.cfg cannot say: the compiled core, which is optional."""

import re
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

VERSION = re.findall(r'__version__ = "(.+)"', Path("calyx_logging/_version.py").read_text("utf-8"))[0]
IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

core = Extension(
    "calyx_logging.compiled._core",
    ["calyx_logging/compiled/core.c"],
    depends=[f"calyx_logging/compiled/{name}.h" for name in ("text", "stamp", "logger", "scan", "rows", "module")],
    define_macros=[("CORE_VERSION", f'"{VERSION}"')],
    optional=True,  # without a compiler the Python code does the same
)
setup(ext_modules=[core] if sys.implementation.name == "cpython" and not IS_FREE_THREADED else [])
