"""What this dialect calls itself and things: the path, finish reasons, model generations."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from aiproxy.middleware.dialects.canonical import FinishReason
from aiproxy.middleware.dialects.reading import words

DIALECT: Final = "gemini"

#: What Google documents for function calls that come from another model: models from generation
#: 3 on refuse the first call of a step in the current turn without a signature.
FOREIGN_SIGNATURE: Final = "skip_thought_signature_validator"

#: Begins the ids that requests without ids are given, so that calls and results can be told
#: apart in other dialects. They are never sent to Gemini.
MADE_ID: Final = "gemini_call_"

#: Members of a tool that run at Google.
HOSTED: Final = words(
    "googleSearch googleSearchRetrieval codeExecution urlContext googleMaps fileSearch "
    "computerUse enterpriseWebSearch retrieval mcpServers parallelAiSearch exaAiSearch"
)

_FILTERED: Final = words(
    "SAFETY RECITATION BLOCKLIST PROHIBITED_CONTENT SPII LANGUAGE IMAGE_SAFETY "
    "IMAGE_PROHIBITED_CONTENT IMAGE_RECITATION MODEL_ARMOR ESCALATION"
)
_CUT: Final = words("MAX_TOKENS CONTINUATION")

#: In the place of a finish reason: the answer broke off.
FAILED: Final = words(
    "MALFORMED_FUNCTION_CALL UNEXPECTED_TOOL_CALL TOO_MANY_TOOL_CALLS MISSING_THOUGHT_SIGNATURE "
    "MALFORMED_RESPONSE NO_IMAGE IMAGE_OTHER PUP_LIMITED_DISABLED"
)
NATIVE: Final = _FILTERED | _CUT | FAILED | words("STOP OTHER")

_OURS: Final[dict[FinishReason, str]] = {
    "stop": "STOP",
    "tool_calls": "STOP",
    "function_call": "STOP",
    "length": "MAX_TOKENS",
    "content_filter": "SAFETY",
}
_GENERATION: Final = re.compile(r"gemini-(\d{1,2}(?:\.\d{1,2})?)(?![\d.])")


def target(model: str, stream: bool) -> str:
    """Return the path of a call below the base URL. ``model`` may name its collection, as in
    ``tunedModels/x``."""
    head, slash, rest = model.partition("/")
    path = f"{head}/{rest}" if slash and head in ("models", "tunedModels") else f"models/{model}"
    head, _, rest = path.partition("/")
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    return f"/{head}/{quote(rest, safe='')}:{method}"


@lru_cache(maxsize=512)
def generation(model: str) -> float:
    """Return the generation of a model, such as 2.5. A name that does not say is the newest."""
    found = _GENERATION.search(model.lower())
    if found is not None:
        return float(found.group(1))
    return 0.0 if "gemma" in model.lower() else 99.0


def native_reason(value: object) -> str | None:
    """Return a finish reason as Google writes it, or ``None`` when there is none yet."""
    if not isinstance(value, str) or not value or value == "FINISH_REASON_UNSPECIFIED":
        return None
    return value.upper()


def told_reason(native: str, called: bool) -> FinishReason:
    """Return our reason. A call makes a plain stop into ``tool_calls``, whichever chunk it was
    in; an unknown word is a stop: the answer was ended on purpose."""
    if native in _FILTERED:
        return "content_filter"
    if native in _CUT:
        return "length"
    return "tool_calls" if called else "stop"


def broke_off(native: str | None, said: bool) -> bool:
    """Tell whether a reason reports a failure. ``said``: there was content before it."""
    return native in FAILED or (native == "OTHER" and not said)


def their_reason(reason: FinishReason, native: str | None) -> str:
    """Return Google's word for a reason; their own word is kept."""
    return native if native is not None and native in NATIVE else _OURS[reason]


def camel(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object with its member names in camel case; Google reads both spellings."""
    for name in given:
        if "_" in name:
            break
    else:
        return given
    made: dict[str, Any] = {}
    for name, value in given.items():
        head, *more = name.split("_")
        made[head + "".join(word[:1].upper() + word[1:] for word in more)] = value
    return made
