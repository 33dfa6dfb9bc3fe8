"""Clients of other APIs than OpenAI's: where they knock, how they sign in, what they are told.

The Messages API of Anthropic has paths of its own; the Gemini API of Google names the model and
what to do with it in the path (``/v1beta/models/NAME:generateContent``, ``/v1/models/...`` from
version 3 of its client). Both are served like any other request: what differs is the path, the
credential's place, and the shape of refusals.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl

import orjson

from aiproxy.middleware.dialects.canonical import Loss
from aiproxy.middleware.dialects.codecs import codec
from aiproxy.middleware.effects import Headers
from aiproxy.middleware.errors import ProxyError
from aiproxy.middleware.gateway import Inbound
from aiproxy.middleware.settings import MODEL_FOLDER, Settings

#: Endpoints whose clients speak another API than OpenAI's.
FOREIGN: Final = frozenset({"anthropic", "gemini"})
_MESSAGES: Final = "/v1/messages"
_MODELS: Final = "/v1/models"
#: Google's alone, served here or not.
_BETA_FOLDER: Final = MODEL_FOLDER.removesuffix("models")
#: Sent by Google's clients and by nobody else's.
_GOOGLE_HEADERS: Final = frozenset({"x-goog-api-key", "x-goog-api-client"})
_COUNTING: Final = "/count_tokens"
_COUNTED: Final = ":countTokens"
#: What may be done with a model of a folder.
_ACTIONS: Final = frozenset({"generateContent", "streamGenerateContent", "countTokens"})
#: Beside ``Authorization: Bearer``, the header an API's own clients send their key in.
KEY_HEADERS: Final[Mapping[str, str]] = {"anthropic": "x-api-key", "gemini": "x-goog-api-key"}
#: Switches on features of Anthropic's API that are tried out.
_BETA: Final = "anthropic-beta"
_MOST_QUERY_FIELDS: Final = 64
#: Anthropic's own status for a provider that has no capacity; its SDK knows it by this number.
_ANTHROPIC_STATUSES: Final = {"provider_overloaded": 529}


@dataclass(frozen=True, slots=True)
class Route:
    """What is served at a path. ``label`` stands for the path in records and logs; ``model`` and
    ``stream`` are what the path itself says. ``counting``: tokens are counted, nobody is asked."""

    endpoint: str
    label: str
    counting: bool = False
    model: str | None = None
    stream: bool = False


class Routes:
    """The inference paths of one configuration."""

    def __init__(self, settings: Settings) -> None:
        self.folders = settings.model_folders
        self._exact = {
            path: Route(kind, path, counting=kind == "anthropic" and path.endswith(_COUNTING))
            for path, kind in settings.endpoints.items()
        }

    def match(self, path: str) -> Route | None:
        """Return what is served at ``path``, or ``None``."""
        found = self._exact.get(path)
        if found is not None:
            return found
        for folder in self.folders:
            if path.startswith(folder):
                model, _, action = path[len(folder) :].rpartition(":")
                if model and action in _ACTIONS:
                    return Route(
                        "gemini",
                        f"{folder}{{model}}:{action}",
                        counting=action == "countTokens",
                        model=model,
                        stream=action == "streamGenerateContent",
                    )
        return None

    def labels(self, *, counting: bool = True) -> list[str]:
        """Return every served path, the model's name as ``{model}``; without ``counting`` only
        those that answer."""
        named = [f"{folder}{{model}}:{action}" for folder in self.folders for action in _ACTIONS]
        found = sorted((*self._exact, *named))
        return found if counting else [p for p in found if not p.endswith((_COUNTING, _COUNTED))]

    def speaks(self, path: str, headers: Headers = ()) -> str:
        """Return the API that is spoken at any path of ours, served or not: *anthropic*,
        *gemini*, or the empty string for OpenAI's. At the one list of models that all three have,
        and where nobody else is at home, the client's own headers tell."""
        found = self._exact.get(path)
        if found is not None:
            return found.endpoint if found.endpoint in FOREIGN else ""
        listed = path == _MODELS or path.startswith(_MODELS + "/")
        if not listed:
            if path.startswith(self.folders) or path + "/" in self.folders:
                return "gemini"
            usual = speaks(path)
            if usual:
                return usual
        told = {name for name, _ in headers}
        if "anthropic-version" in told:
            return "anthropic"
        return "" if told.isdisjoint(_GOOGLE_HEADERS) else "gemini"


def speaks(path: str) -> str:
    """Return the API that is usual at a path: *anthropic*, *gemini*, or the empty string."""
    if path == _MESSAGES or path.startswith(_MESSAGES + "/"):
        return "anthropic"
    if path.startswith(_BETA_FOLDER):
        return "gemini"
    return ""


# --- who asks ------------------------------------------------------------------------------------


def offered_keys(endpoint: str, headers: Headers, query: str) -> Iterator[str]:
    """Yield the keys of ours a request offers, wherever its API has them."""
    bearer = next((value for name, value in headers if name == "authorization"), "")
    scheme, _, token = bearer.partition(" ")
    if scheme.lower() == "bearer":
        yield token.strip()
    own = KEY_HEADERS.get(endpoint)
    if own is None:
        return
    given = next((value for name, value in headers if name == own), None)
    if given:
        yield given.strip()
    if endpoint == "gemini" and "key=" in query:
        in_query = query_value(query, "key")
        if in_query:
            yield in_query


def how_to_sign_in(endpoint: str) -> str:
    """Return where a client of an API puts its key, in words."""
    own = KEY_HEADERS.get(endpoint)
    plain = "Authorization: Bearer <key>"
    return plain if own is None else f"{plain} or {own}: <key>"


def query_value(query: str, name: str) -> str | None:
    """Return the first value of a query parameter; ``None`` too where the query makes no sense."""
    if not query:
        return None
    try:
        pairs = parse_qsl(query, max_num_fields=_MOST_QUERY_FIELDS)
    except ValueError:
        return None
    return next((value for key, value in pairs if key == name), None)


def wants_events(query: str) -> bool:
    """Whether a Gemini client asked for server-sent events; otherwise it streams a JSON array."""
    return query_value(query, "alt") == "sse"


def refuse_form(query: str) -> None:
    """Refuse an answer in a form that is not spoken here (``alt=proto``, ``alt=media``).

    Raises:
        ProxyError: 400 ``invalid_value``.
    """
    if query_value(query, "alt") not in (None, "json", "sse"):
        raise ProxyError("invalid_value", "alt: expected json or sse.", param="alt")


# --- what their headers ask for ------------------------------------------------------------------


def passed_headers(inbound: Inbound, dialect: str) -> Headers:
    """Return what a provider of the client's own API has to hear beside the body."""
    if inbound.endpoint != "anthropic" or dialect != "anthropic":
        return ()
    return tuple(row for row in inbound.headers if row[0] == _BETA)


def lost_headers(inbound: Inbound, dialect: str) -> tuple[Loss, ...]:
    """Return what a provider of another API cannot hear of the client's headers."""
    if inbound.endpoint != "anthropic" or dialect == "anthropic" or not inbound.header(_BETA):
        return ()
    return (Loss("beta", f"{_BETA} has no meaning in {dialect}"),)


# --- what they are told --------------------------------------------------------------------------


def refusal(error: ProxyError, endpoint: str, request_id: str) -> tuple[int, bytes]:
    """Return the status and body of a refusal in the shape of the client's API."""
    if endpoint not in FOREIGN:
        return error.status, error.encode()
    status = error.status
    if endpoint == "anthropic":
        status = _ANTHROPIC_STATUSES.get(error.code, status)
    inner: Mapping[str, Any] = error.body()["error"]
    body: dict[str, Any] = codec(endpoint).encode_error(status, inner)
    if endpoint == "anthropic":
        body.setdefault("request_id", request_id)
    return status, orjson.dumps(body)


def identity(endpoint: str, request_id: str) -> Headers:
    """Return the headers that name an answer: Anthropic's clients look for ``request-id``."""
    if endpoint == "anthropic":
        return (("x-request-id", request_id), ("request-id", request_id))
    return (("x-request-id", request_id),)
