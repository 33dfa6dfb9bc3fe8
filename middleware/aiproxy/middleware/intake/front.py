"""Which requests are ours, shared by the two mounts.

Scope ``opt_in``: a request to an inference path that carries an X-AI header; everything else is
the application's, untouched. Scope ``all``: every request to an inference path, the model list and
the decision records; and where keys are configured, no other path answers without one.
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from aiproxy.middleware.effects import Headers, Reply
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Gateway, Inbound, json_reply
from aiproxy.middleware.intake.admission import authenticate, request_id
from aiproxy.middleware.intake.ingress import Route, Routes, identity, refusal
from aiproxy.middleware.intake.listings import (
    anthropic_model,
    anthropic_models,
    google_model,
    google_models,
)
from aiproxy.middleware.providers.link import Link, links_of

#: Answered without a key: liveness and readiness probes hold none.
OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DECISIONS: Final = "/v1/routing/decisions/"
_MODELS: Final = "/v1/models"


class Front:
    """Decides by method, path and header names.

    ``paths`` are the inference paths that are known to the letter; below ``folders`` (tuple of
    prefixes) a path names its model and is worth asking ``route`` about.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.everything = gateway.settings.scope == "all"
        self.paths = gateway.settings.endpoints
        self.folders = gateway.settings.model_folders
        self._routes = Routes(gateway.settings)
        self.route = self._routes.match
        self.limit = gateway.settings.max_request_bytes
        self.read_timeout_s = gateway.config.values["server"]["read_timeout"]

    def inbound(self, route: Route, headers: Headers, query: str, body: bytes) -> Inbound:
        """The request that was made at ``route``."""
        return Inbound(
            route.label,
            route.endpoint,
            headers,
            body,
            query,
            route.model,
            route.stream,
            route.counting,
        )

    def answer(self, method: str, path: str, headers: Headers, query: str = "") -> Reply | None:
        """Scope ``all``, any request but an inference POST: our reply, or ``None`` for the app's.

        Keys are checked here for every path but the health probes.
        """
        api = self._routes.speaks(path, headers)
        try:
            return self._answer(method, path, headers, query, api)
        except ProxyError as error:
            return self.refusal(error, headers, api)

    def _answer(
        self, method: str, path: str, headers: Headers, query: str, api: str
    ) -> Reply | None:
        gateway = self.gateway
        preflight = method == "OPTIONS" and any(
            name == "access-control-request-method" for name, _ in headers
        )
        if path in OPEN_PATHS or preflight:
            return None
        needed = "read" if method in _READING else "inference"
        key = authenticate(gateway, headers, needed, api, query)
        owner = None if key is None else key.name
        if path in gateway.settings.disabled_paths:
            raise ProxyError("not_found", "This endpoint is switched off here.")
        if method not in ("GET", "HEAD"):
            return None
        new_id = request_id(headers, gateway.runtime.new_id)
        if path.startswith(_DECISIONS):
            return json_reply(gateway.decision(path[len(_DECISIONS) :], owner), new_id)
        if api:
            return self._listed(path, api, new_id)
        if path.rstrip("/") == _MODELS:
            return json_reply(gateway.models(), new_id)
        if path.startswith(_MODELS + "/"):
            return json_reply(gateway.model(unquote(path[len(_MODELS) + 1 :])), new_id)
        return None

    def _listed(self, path: str, api: str, new_id: str) -> Reply | None:
        """The model list, or one of its entries, for a client of another API."""
        gateway = self.gateway
        if self.route(path) is not None:
            return None
        document = None
        if api == "anthropic":
            if path.rstrip("/") == _MODELS:
                document = anthropic_models(gateway)
            elif path.startswith(_MODELS + "/"):
                document = anthropic_model(gateway, unquote(path[len(_MODELS) + 1 :]))
        else:
            for folder in self.folders:
                if path.rstrip("/") == folder[:-1]:
                    document = google_models(gateway)
                elif path.startswith(folder):
                    document = google_model(gateway, unquote(path[len(folder) :]))
        if document is None:
            return None
        return json_reply(document, new_id, extra=identity(api, new_id)[1:])

    def check_head(self, headers: Headers) -> None:
        """Refuse by the request head alone: 413 for a declared length, 415 for a media type.

        Raises:
            ProxyError: ``request_too_large`` or ``unsupported_media_type``.
        """
        for name, value in headers:
            if name == "content-type":
                kind = value.partition(";")[0].strip().lower()
                if kind and kind != "application/json" and not kind.endswith("+json"):
                    raise ProxyError(
                        "unsupported_media_type",
                        "The body must be JSON: send Content-Type: application/json.",
                        param="Content-Type",
                    )
            elif name == "content-length":
                if value.isdecimal() and int(value) > self.limit:
                    raise self.too_large()
            elif name == "content-encoding" and value.strip().lower() not in ("", "identity"):
                raise ProxyError(
                    "unsupported_media_type",
                    "Compressed request bodies are not accepted; send the JSON as it is.",
                    param="Content-Encoding",
                )

    def too_large(self) -> ProxyError:
        return ProxyError(
            "request_too_large",
            f"The body is larger than the {self.limit} bytes accepted here.",
        )

    def too_slow(self) -> ProxyError:
        return ProxyError(
            "request_timeout",
            f"The body did not arrive within {self.read_timeout_s:g} s.",
            headers=(("connection", "close"),),
        )

    def refusal(self, error: ProxyError, headers: Headers, endpoint: str = "") -> Reply:
        """The reply of a request that was refused before it became an exchange."""
        new_id = request_id(headers, self.gateway.runtime.new_id)
        status, body = refusal(error, endpoint, new_id)
        head = (
            ("content-type", "application/json"),
            *identity(endpoint, new_id),
            *error.response_headers(),
        )
        return Reply(status, head, body)


def links(gateway: Gateway) -> dict[str, Link]:
    """What the transports need to know of each provider reached over HTTP."""
    return links_of(gateway.registry.providers.values())


def lower(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """ASGI headers as text pairs."""
    return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in headers)
