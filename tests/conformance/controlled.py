"""Runs the suite in controlled mode against a right router in this process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from right_router import RightRouter

from aiproxy.conformance import Options, Report, run
from aiproxy.conformance.launching import Launcher

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def launcher(*defects: str) -> Launcher:
    """Return what starts a right router with these defects for a rendered configuration."""

    @contextmanager
    def launch(config: Path, port: int) -> Iterator[str]:
        loaded = yaml.load(config.read_text(), Loader=_LOADER)
        with RightRouter(loaded, *defects, port=port) as router:
            yield router.url

    return launch


def graded(*defects: str, **options: Any) -> Report:
    """Return the report of a controlled run; ``options`` are those of ``Options``."""
    told = {"level": 3, "seed": 7, **options}
    return run("", Options(launcher=launcher(*defects), **told))
