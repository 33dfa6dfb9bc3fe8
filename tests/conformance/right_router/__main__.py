"""``python -m right_router CONFIG PORT [DEFECT...]``, with ``tests/conformance`` on the path."""

import sys
import threading
from pathlib import Path

import yaml

from right_router import RightRouter


def main() -> None:
    """Serve until the process is ended."""
    path, port, *defects = sys.argv[1:]
    with RightRouter(yaml.safe_load(Path(path).read_text()), *defects, port=int(port)) as router:
        print(f"listening on {router.url}", file=sys.stderr, flush=True)
        threading.Event().wait()


main()
