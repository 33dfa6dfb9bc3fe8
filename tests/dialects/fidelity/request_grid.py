"""Every request of the table, said in each ingress dialect and carried to each egress dialect."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final, Literal, TypeAlias

import orjson
from fidelity.facts import Fact
from fidelity.features import REQUESTS, Feature
from fidelity.request_readers import ANSWER_TOOL, spoken, understood

from aiproxy.middleware.dialects.canonical import Untranslatable
from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec

State: TypeAlias = Literal["kept", "lossy", "refused", "unsaid", "silent"]
#: Dialects that clients speak, and which have both directions; the draft's is chat's here.
INGRESS: Final = ("chat", "responses", "draft", "anthropic", "gemini", "completions")
#: The model a provider is asked for: what it takes follows from it.
MODELS: Final = {"anthropic": "claude-opus-4-5", "gemini": "gemini-2.5-flash"}
FEATURES: Final = {feature.name: feature for feature in REQUESTS}


@dataclass(frozen=True)
class Cell:
    """What became of a feature. ``told`` are the names under which a part of it was declared."""

    state: State
    told: tuple[str, ...] = ()
    missing: tuple[Fact, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.state, *self.told])


def model_of(dialect: str) -> str:
    return MODELS.get(dialect, "m")


def there(name: str) -> bool:
    """Tell whether the dialect's module is in this release."""
    try:
        return hasattr(codec(name), "StreamDecoder") or hasattr(codec(name), "decode_request")
    except (ImportError, KeyError):
        return False


def ingresses() -> tuple[str, ...]:
    return tuple(n for n in INGRESS if there(n) and hasattr(codec(n), "decode_request"))


def egresses(ingress: str) -> tuple[str, ...]:
    """The dialects a request of ``ingress`` may be carried in."""
    return tuple(n for n in SPOKEN_FOR[ingress] if there(n))


def missing(feature: Feature, found: list[Fact]) -> tuple[Fact, ...]:
    """The wanted facts that are not among those found, or not in the order wanted."""
    lost, least = [], 0
    for wanted in feature.wants:
        place = next((i for i in range(least, len(found)) if _holds(found[i], wanted)), None)
        if place is None:
            lost.append(wanted)
        elif feature.ordered:
            least = place
    return tuple(lost)


def _holds(found: Fact, wanted: Fact) -> bool:
    """Tell whether a fact says what is wanted; texts of one speaker may have been joined."""
    if wanted[0] in ("system", "user", "assistant", "result"):
        return found[:-1] == wanted[:-1] and wanted[-1] in found[-1]
    return found == wanted


@cache
def said_in(ingress: str, name: str, stream: bool) -> bytes | None:
    """The client's body, or ``None`` where the dialect has no words for the feature.

    A client of another release may write it otherwise; that its reader finds the feature there
    shows that this is one way to say it.
    """
    feature = FEATURES[name]
    written = "chat" if ingress == "draft" else ingress
    request = replace(feature.make(written), stream=stream)
    try:
        body, _ = codec(written).encode_request(request, model_of(written))
    except Untranslatable:
        return None
    if written == "anthropic":
        body = _own_words(body)
    if missing(feature, spoken(written, body)):
        return None
    if ingress == "gemini":  # the path says what other bodies say; the mounts write it in
        body = {**body, "model": "m", **({"stream": True} if stream else {})}
    return orjson.dumps(body)


def _own_words(body: dict[str, Any]) -> dict[str, Any]:
    """A shape asked for as a client of the Messages API would, without our answering tool."""
    tools = [tool for tool in body.get("tools", ()) if tool.get("name") != ANSWER_TOOL]
    shapes = [tool for tool in body.get("tools", ()) if tool.get("name") == ANSWER_TOOL]
    if not shapes:
        return body
    mine = {k: v for k, v in body.items() if k not in ("tools", "tool_choice")}
    if shapes[0]["input_schema"].get("properties"):
        shape = {"type": "json_schema", "schema": shapes[0]["input_schema"]}
        mine["output_config"] = {"format": shape}
    return {**mine, **({"tools": tools} if tools else {})}


@cache
def cell(ingress: str, egress: str, name: str, stream: bool) -> Cell:
    """Carry a feature from one dialect to another and look what the provider would see."""
    feature = FEATURES[name]
    body = said_in(ingress, name, stream)
    if body is None:
        return Cell("unsaid")
    request = replace(codec(ingress).decode_request(orjson.loads(body)), stream=stream)
    try:
        sent, losses = codec(egress).encode_request(request, model_of(egress))
    except Untranslatable as refused:
        return Cell("refused", (refused.feature,))
    sent = orjson.loads(orjson.dumps(sent))
    lost = missing(feature, understood(egress, sent))
    told = tuple(sorted({loss.feature for loss in losses}))
    if not lost:
        return Cell("lossy" if told else "kept", told)
    relevant = any(word.startswith(name) for word in told for name in feature.names)
    return Cell("lossy" if relevant else "silent", told, lost)


def sent_bodies(ingress: str, stream: bool) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the body each provider is sent for each feature that reaches it."""
    for name in FEATURES:
        body = said_in(ingress, name, stream)
        if body is None:
            continue
        request = replace(codec(ingress).decode_request(orjson.loads(body)), stream=stream)
        for egress in egresses(ingress):
            try:
                yield egress, name, codec(egress).encode_request(request, model_of(egress))[0]
            except Untranslatable:
                continue
