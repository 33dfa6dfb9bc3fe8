"""Images to labels by the local models, for ``/aiproxy/predict``.

The path is for the middleware alone, which asks it within the process; ``app.Server`` answers a
client that knocks there like anywhere else where nothing is.
"""

import falcon.asgi

from aiproxy.middleware.dialects.classifications import DIALECT
from aiproxy.middleware.intake.admission import read_json
from aiproxy.middleware.registry import DIALECT_PATHS
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.reference_server.resources.documents import send

PATH = "/v1" + DIALECT_PATHS[DIALECT]


class Classifications:
    """``POST /v1/images/classifications``."""

    def __init__(self, local: LocalModels) -> None:
        self._local = local

    async def on_post(self, req: falcon.asgi.Request, resp: falcon.asgi.Response) -> None:
        send(resp, await self._local.classify(read_json(await req.stream.read())))
