"""From a request and an act to what goes over the wire. No sockets here."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from aiproxy.conformance.rig.acts import Act
from aiproxy.conformance.rig.fleet import Actor
from aiproxy.conformance.rig.guard import Guard
from aiproxy.conformance.rig.http1 import Request
from aiproxy.conformance.rig.proof import Proofs
from aiproxy.conformance.rig.shapes import DIALECTS
from aiproxy.conformance.rig.shapes.speech import (
    Ask,
    Call,
    Frames,
    Refusal,
    Said,
    instance,
    packed,
)

# These strike whatever was asked, so a request the provider would refuse meets them all the same.
BLIND: Final = frozenset(
    {"reset", "close", "silence", "half-head", "html", "empty", "not-json", "wrong-shape",
     "error-in-200", "redirect"}
)  # fmt: skip
# These end an answer before its token counts are told.
BROKEN_OFF: Final = frozenset({"cut", "cut-clean", "stall", "error-event", "endless"})
_HTML: Final = "<!doctype html><html><head><title>Gateway</title></head><body>Hello</body></html>"
_UNICODE: Final = "{proof} – ünïcödé 漢字 🙂"
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Plan:
    """An answer before it is sent: a body, or frames when it is a stream."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    frames: Frames | None = None
    usage: Mapping[str, Any] | None = None


class Author:
    """Writes the answers of all fakes of a run."""

    def __init__(self, proofs: Proofs) -> None:
        self._proofs, self._guard = proofs, Guard()

    def plan(self, request: Request, actor: Actor, act: Act, nonce: str, number: int) -> Plan:
        """Return the answer to attempt ``number`` for ``nonce``.

        Raises:
            HarnessFault: what came out breaks our own schemas.
        """
        dialect = DIALECTS[actor.fake.dialect]
        mark = self._proofs.mark(nonce, actor.id)
        said_id = self._proofs.id(nonce, actor.id, str(number))
        base = dialect.headers(request, said_id)
        refused = partial(dialect.refused, request)
        blunt = _blunt(act, refused, f"http://localhost:{_port(actor)}")
        if blunt is not None:
            return Plan(act.status if blunt[0] == 0 else blunt[0], (*base, *blunt[1]), blunt[2])
        try:
            ask = dialect.read(request, actor)
        except Refusal as refusal:
            return Plan(refusal.status, (*base, _type(_JSON)), _bytes(refused(refusal)))
        if act.body is not None:
            text = act.body.replace("{proof}", f"proof-{mark}")
            return Plan(act.status, (*base, _type(act.content_type)), text.encode())
        said = self._said(ask, actor, act, nonce, number, said_id)
        healthy = act.finish is None and act.usage is None and not act.extra
        if ask.stream and act.fault != "whole-for-stream":
            frames = dialect.frames(ask, said)
            if healthy:
                self._guard.stream(
                    actor.fake.dialect, ask, frames.opening + frames.content + frames.usage
                )
            kind = _JSON if act.fault == "wrong-media-type" else frames.media_type
            fields = (*base, _type(kind), ("cache-control", "no-cache"))
            told = frames.counted and act.fault not in BROKEN_OFF
            return Plan(act.status, fields, b"", frames, said.usage if told else None)
        answer = dialect.whole(ask, said)
        if healthy and act.fault != "no-finish":
            self._guard.whole(actor.fake.dialect, ask, answer)
        silent = ask.shape in ("models", "model", "mesh") or act.fault in BROKEN_OFF
        usage = None if silent else said.usage
        return Plan(act.status, (*base, _type(_JSON)), _bytes(answer), None, usage)

    def _said(
        self, ask: Ask, actor: Actor, act: Act, nonce: str, number: int, said_id: str
    ) -> Said:
        mark = self._proofs.mark(nonce, actor.id)
        proof = f"proof-{mark}"
        calls = _calls(ask, act, mark)
        text = act.text
        if text is None and act.fault == "split":
            text = _UNICODE
        if text is None:
            text = "" if calls else _formed(ask, proof)
        finish = ("tool_calls" if calls else "stop") if act.finish is None else act.finish
        return Said(
            id=said_id,
            mark=mark,
            model=actor.upstream_model,
            created=int(time.time()),
            text=text.replace("{proof}", proof),
            calls=calls,
            finish=None if act.fault == "no-finish" else finish,
            usage=self._usage(ask, actor, act, nonce, number),
            pieces=act.pieces,
            late=act.fault == "late-call",
            extra=act.extra,
            vector=lambda place, size: self._proofs.vector(nonce, actor.id, place, size),
        )

    def _usage(
        self, ask: Ask, actor: Actor, act: Act, nonce: str, number: int
    ) -> Mapping[str, Any] | None:
        if act.usage is not None:
            return dict(act.usage) or None
        chance = self._proofs.chance("usage", nonce, actor.id, str(number))
        prompt = chance.randint(11, 900)
        most = max(1, min(300, (ask.limit or 301) - 1))
        completion = chance.randint(min(7, most), most)
        if ask.shape == "embeddings":
            completion = 0
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }


def _blunt(
    act: Act, refused: Any, elsewhere: str
) -> tuple[int, tuple[tuple[str, str], ...], bytes] | None:
    """Return status (0: the act's), fields and body of what is answered to any request at all."""
    status = 0
    match act.fault:
        case "html":
            return status, (_type("text/html; charset=utf-8"),), _HTML.encode()
        case "empty":
            return status, (_type(_JSON),), b""
        case "not-json":
            return status, (_type(_JSON),), b'{"id": "chatcmpl-1", "choices": [{"message": {"ro'
        case "wrong-shape":
            return status, (_type(_JSON),), b'{"result": "ok", "items": [1, 2, 3]}'
        case "redirect":
            # The same socket under another name, so that the log shows who followed.
            return 307, (("location", f"{elsewhere}/redirected"),), b""
        case "error-in-200":
            body = _bytes(refused(Refusal(500, act.message, code=act.code)))
            return status, (_type(_JSON),), body
        case fault if fault in BLIND:
            return status, (), b""
    if act.status >= 400 or 300 <= act.status < 400:
        kind = _type(act.content_type)
        if act.body is not None:
            return status, (kind,), act.body.encode()
        return status, (kind,), _bytes(refused(Refusal(act.status, act.message, code=act.code)))
    return None


def _calls(ask: Ask, act: Act, mark: str) -> tuple[Call, ...]:
    wanted = list(act.tool_calls)
    if not wanted and ask.tool is not None and act.text is None:
        name, schema = ask.tool
        wanted = [(name, instance(schema, f"proof-{mark}"))]
    return tuple(
        Call(f"call_{mark}{place}", name, packed(arguments).replace("{proof}", f"proof-{mark}"))
        for place, (name, arguments) in enumerate(wanted)
    )


def _formed(ask: Ask, proof: str) -> str:
    return proof if ask.form is None else packed(instance(ask.form, proof))


def _bytes(answer: Any) -> bytes:
    return packed(answer).encode()


def _type(kind: str) -> tuple[str, str]:
    return ("content-type", kind)


def _port(actor: Actor) -> str:
    return actor.endpoint.partition("//")[2].partition("/")[0].rpartition(":")[2]
