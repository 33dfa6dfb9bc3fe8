"""The grid in the documentation is the grid of the tests."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from aiproxy.middleware.dialects.codecs import SPOKEN_FOR

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location(
        "build_fidelity", ROOT / "scripts" / "build_fidelity.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_fresh(script: Any) -> None:
    assert script.PAGE.read_text("utf-8") == script.page(), "run scripts/build_fidelity.py"


def test_no_cell_is_silent(script: Any) -> None:
    text = script.page()
    assert "*silent*" not in text
    counts = [row.split("|")[-2].strip() for row in text.splitlines() if row.startswith(("| requests ", "| answers "))]  # fmt: skip
    assert counts == ["0", "0"]


def test_every_dialect_of_this_release_is_in_the_grid(script: Any) -> None:
    text = script.page()
    for ingress, targets in SPOKEN_FOR.items():
        if ingress not in ("embeddings", "classifications"):  # they have one dialect each
            for name in targets:
                assert script.TITLES[name] in text, f"{name} cannot be imported, or has no words"
