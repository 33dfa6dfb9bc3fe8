"""The conversation out: turns to contents, in the order that Gemini insists on."""

from typing import Any

from aiproxy.middleware.dialects.canonical import (
    Image,
    Loss,
    Part,
    Text,
    ToolCall,
    ToolResult,
    Turn,
    Untranslatable,
)
from aiproxy.middleware.dialects.gemini.matching import OpenCalls
from aiproxy.middleware.dialects.gemini.parts_out import encode_part, response_value
from aiproxy.middleware.dialects.gemini.vocabulary import (
    DIALECT,
    FOREIGN_SIGNATURE,
    MADE_ID,
    generation,
)
from aiproxy.middleware.dialects.losses import note, strangers


class Contents:
    """Collects the ``contents`` and the system parts of a request from ``source``.

    Neighbours of one role become one content. The results of a step come together in one user
    content, in the order of its calls.
    """

    def __init__(self, source: str, model: str, losses: list[Loss]) -> None:
        self.system: list[dict[str, Any]] = []
        self.contents: list[dict[str, Any]] = []
        self._source = source
        self._age = generation(model)
        self._losses = losses
        self._calls: dict[str, tuple[int, str]] = {}
        self._made = 0
        self._open: OpenCalls[int] = OpenCalls()
        self._results: list[tuple[int, dict[str, Any], list[dict[str, Any]]]] = []

    def add(self, turn: Turn) -> None:
        """Take the next turn.

        Raises:
            Untranslatable: see ``encode_part``; or a result answers no call.
        """
        self._lose_members(turn)
        if turn.role in ("system", "developer"):
            self._instruct(turn)
            return
        others: list[Part] = []
        for part in turn.parts:
            if isinstance(part, ToolResult):
                self._result(part)
            else:
                others.append(part)
        if turn.parts and not others:
            return
        if self._results:
            self._flush()
        parts = []
        for part in others:
            made = self._part(part)
            if made is not None:
                parts.append(made)
        if turn.role == "assistant":
            if parts:
                self._append("model", parts)
        elif parts or turn.role == "user":
            self._append("user", parts or [{"text": ""}])

    def finish(self) -> list[dict[str, Any]]:
        """Return the contents; one is made of the instructions when there is nothing else."""
        self._flush()
        if not self.contents and self.system:
            note(self._losses, [Loss("system", "instructions alone are told as the user's")])
            self._append("user", self.system)
            self.system = []
        if self._age >= 3:
            _sign_foreign(self.contents)
        return self.contents

    def _part(self, part: Part) -> dict[str, Any] | None:
        if isinstance(part, ToolCall):
            number, self._made = self._made, self._made + 1
            self._calls[part.id or f"#{number}"] = (number, part.name)
            self._open.add(number, part.name)
        return encode_part(part, self._source, self._losses)

    def _instruct(self, turn: Turn) -> None:
        if (self.contents or self._results) and turn.parts:
            note(self._losses, [Loss("system", "later instructions move to the front")])
        for part in turn.parts:
            made = self._part(part)
            if made is not None:
                self.system.append(made)

    def _append(self, role: str, parts: list[dict[str, Any]]) -> None:
        if self.contents and self.contents[-1]["role"] == role:
            self.contents[-1]["parts"].extend(parts)
        else:
            self.contents.append({"role": role, "parts": list(parts)})

    def _result(self, result: ToolResult) -> None:
        number, name = self._call_of(result)
        own = self._source == DIALECT
        texts: list[str] = []
        inner: list[dict[str, Any]] = []
        beside: list[dict[str, Any]] = []
        for part in result.parts:
            if isinstance(part, Text):
                texts.append(part.text)
                continue
            made = encode_part(part, self._source, self._losses)
            if made is None:
                continue
            if "text" in made:
                texts.append(made["text"])
            elif own or (isinstance(part, Image) and self._age >= 3):
                inner.append(made)
            else:
                note(self._losses, [Loss("tool_result", "media follow the result as user parts")])
                beside.append(made)
        response: dict[str, Any] = {"name": name}
        if result.call_id and not result.call_id.startswith(MADE_ID):
            response["id"] = result.call_id
        response["response"] = response_value("".join(texts), result.is_error)
        if inner:
            response["parts"] = inner
        extra = dict(result.extra) if own else {}
        if not own and result.extra:
            strangers(self._losses, result.extra, "tool_result", DIALECT)
        more = extra.pop("functionResponse", {})
        self._results.append((number, {"functionResponse": {**response, **more}, **extra}, beside))

    def _call_of(self, result: ToolResult) -> tuple[int, str]:
        """Return the place and the name of the call that a result answers: by id, else the
        first open one of its name."""
        known = self._calls.get(result.call_id) if result.call_id else None
        if known is not None:
            self._open.answer(known[0])
            return known
        if not result.name:
            raise Untranslatable("tool_result", "a result answers none of the earlier calls")
        number = self._open.first(result.name)
        return self._made if number is None else number, result.name

    def _flush(self) -> None:
        if not self._results:
            return
        ordered = sorted(self._results, key=lambda entry: entry[0])
        self._results = []
        self._append("user", [made for _, made, _ in ordered])
        beside = [part for _, _, parts in ordered for part in parts]
        if beside:
            self._append("user", beside)

    def _lose_members(self, turn: Turn) -> None:
        if self._source == DIALECT:
            return
        if turn.name is not None and turn.role != "tool":
            note(self._losses, [Loss("message.name", "gemini has no participant names")])
        if turn.extra:
            strangers(self._losses, turn.extra, "message_members", DIALECT)


def _sign_foreign(contents: list[dict[str, Any]]) -> None:
    """Mark the first call of each step of the current turn that has no signature: its model was
    another one. The current turn begins with the last thing the user said."""
    first = 0
    for i in range(len(contents) - 1, -1, -1):
        content = contents[i]
        if content["role"] == "user" and any("functionResponse" not in p for p in content["parts"]):
            first = i
            break
    for content in contents[first:]:
        if content["role"] == "model":
            _sign(content["parts"])


def _sign(parts: list[dict[str, Any]]) -> None:
    for part in parts:
        if "functionCall" in part:
            part.setdefault("thoughtSignature", FOREIGN_SIGNATURE)
            return


def sign_reply(parts: list[dict[str, Any]]) -> None:
    """Mark the first call of an answer by another model, so that the client's next request
    could go to Gemini as it is."""
    _sign(parts)
