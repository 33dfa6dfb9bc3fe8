"""What the clients of the official SDKs share: their cases, run one by one and told as JSON.

A client runs in an environment of its own that has one SDK and knows nothing of this project.
"""

import json
import traceback
from collections.abc import Callable

CASES: dict[str, Callable] = {}


def case(function: Callable) -> Callable:
    CASES[function.__name__] = function
    return function


def equal(found, expected) -> None:
    if found != expected:
        raise AssertionError(f"found {found!r}, expected {expected!r}")


def main(version: str) -> None:
    """Print ``{"case", "ok", "detail"}`` for each case, then the SDK's version as one of them."""
    for name, run in CASES.items():
        try:
            run()
            told = {"case": name, "ok": True, "detail": ""}
        except Exception:  # noqa: BLE001 - whatever it is, it is this case's result
            told = {"case": name, "ok": False, "detail": traceback.format_exc(limit=-3)}
        print(json.dumps(told), flush=True)
    print(json.dumps({"case": "version", "ok": True, "detail": version}))
