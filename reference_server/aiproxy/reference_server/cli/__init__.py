"""The ``aiproxy`` command. Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3
unreachable."""

import sys

from aiproxy.reference_server.cli.commands import aiproxy, serve


def main() -> None:
    """Entry point of ``aiproxy``."""
    aiproxy(prog_name="aiproxy")


def serve_alias() -> None:
    """Entry point of ``aiserve-gpuproxyd``, the Standard's name for ``aiproxy serve``."""
    serve(prog_name="aiserve-gpuproxyd", args=sys.argv[1:])


__all__ = ["main", "serve_alias"]
