"""A scenario being read: where its parts stand, and what is wrong with them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from aiproxy.middleware.config import ConfigInvalid, Problem
from aiproxy.middleware.config.nodes import Node, Path
from aiproxy.reference_server.simulate.scripts import Window
from aiproxy.reference_server.simulate.spreads import BadSpread, Spread, fixed, read_spread
from aiproxy.spec.faults import dotted


@dataclass(slots=True)
class Reader:
    """The tree of ``file``; paths in it are relative to ``folder``. Problems are gathered."""

    file: str
    root: Node
    folder: FilePath
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: Path, message: str) -> None:
        """Add a reason not to run the scenario."""
        line, column = self.root.place(path)
        self.problems.append(Problem(self.file, line, column, dotted(path), message))

    def end(self) -> None:
        """Raise ``ConfigInvalid`` if there is any."""
        if self.problems:
            raise ConfigInvalid(sorted(self.problems, key=lambda one: (one.line, one.column)))

    def spread(self, value: Any, path: Path, *, times: bool = True) -> Spread | None:
        """Return how a filled value is spread, ``None`` where nothing is said."""
        try:
            return read_spread(value, self.folder, times=times)
        except BadSpread as fault:
            self.refuse((*path, fault.key) if fault.key else path, str(fault))
            return fixed(0.0)

    def window(self, row: Mapping[str, Any], path: Path) -> Window:
        """Return the stretch of a row with ``from`` and ``to``."""
        end = row["to"]
        if end is not None and end <= row["from"]:
            self.refuse((*path, "to"), "found an end that is not after from, expected a later one")
        return Window(row["from"]) if end is None else Window(row["from"], end)
