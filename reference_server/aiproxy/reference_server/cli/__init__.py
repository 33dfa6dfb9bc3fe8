"""The ``aiproxy`` command. Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3
unreachable.

Grading needs the extra ``conformance`` only, everything else the extra ``server``.
"""

import sys
from types import ModuleType


def main() -> None:
    """Entry point of ``aiproxy``."""
    if sys.argv[1:2] == ["conformance"]:
        from aiproxy.conformance import cli_main

        sys.exit(cli_main(sys.argv[2:]))
    _commands().aiproxy(prog_name="aiproxy")


def serve_alias() -> None:
    """Entry point of ``aiserve-gpuproxyd``, the Standard's name for ``aiproxy serve``."""
    _commands().serve(prog_name="aiserve-gpuproxyd", args=sys.argv[1:])


def _commands() -> ModuleType:
    """Return the module of the commands, or end with one line that says what it lacks."""
    try:
        from aiproxy.reference_server.cli import commands
    except ModuleNotFoundError as missing:
        if missing.name != "click":
            raise
        print("aiproxy: this needs: pip install 'aiproxy[server]'", file=sys.stderr)
        sys.exit(2)
    return commands


__all__ = ["main", "serve_alias"]
