"""The bundled model, loaded once, alone and as a server configures it."""

from collections.abc import Iterator

import pytest

from aiproxy.reference_server.onnx import LocalModels
from aiproxy.reference_server.onnx.text_model import DEMO, TextModel


@pytest.fixture(scope="session")
def demo() -> TextModel:
    return TextModel.load(DEMO)


@pytest.fixture
def models() -> Iterator[LocalModels]:
    """One place and one queue place a model; ids and times do not change."""
    provider = {
        "models": [{"name": "demo", "path": DEMO}],
        "max_concurrency": 1,
        "max_queue": 1,
        "max_queue_wait": 10.0,
    }
    served = LocalModels.from_config(provider, now=lambda: 1700000000.0, new_id=lambda: "1")
    yield served
    for model in served.models:
        if model.running is not None:
            model.running.engine.close()
