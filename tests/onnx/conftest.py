"""The bundled model as a server configures it, alone and with one place a request."""

from collections.abc import Iterator

import pytest

from aiproxy.reference_server.onnx import LocalModels
from aiproxy.reference_server.onnx.folders import DEMO
from aiproxy.reference_server.onnx.local_model import RunningText


@pytest.fixture(scope="session")
def demo() -> Iterator[RunningText]:
    """The model and an engine that many requests share."""
    served = LocalModels.from_config({"models": [{"name": "demo", "path": DEMO}]})
    (model,) = served.models
    assert model.text is not None, model.reason
    yield model.text
    model.close()


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
        model.close()
