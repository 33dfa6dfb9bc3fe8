"""Images to labels: what ``POST /aiproxy/predict`` asks of the application or of a local model.

No public API has an endpoint for it, so this dialect is spoken inside the process only
(``/v1/images/classifications`` of the wrapped application) and has no canonical form: a candidate
that does not speak it cannot be asked. The body is ``{"model", "image", "labels"?, "top_k"?}`` with
the image as base64 (plain, a data URL, or ``{"data", "media_type"?}``); the answer
``{"object": "list", "model", "data": [{"label", "score"}, ...], "usage"?}``, best first; errors have
OpenAI's shape.
"""

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from aiproxy.middleware.dialects import usage
from aiproxy.middleware.dialects.canonical import Usage

DIALECT: Final = "classifications"


def check_reply(body: Mapping[str, Any]) -> str | None:
    """Return why a 200 body is no answer, or ``None`` when it is one."""
    if body.get("error"):
        return "the body holds an error object"
    rows = body.get("data")
    if not isinstance(rows, list) or not rows:
        return "data is missing or empty"
    for i, row in enumerate(rows):
        if not isinstance(row, (dict, Mapping)) or not isinstance(row.get("label"), str):
            return f"data[{i}].label is missing"
        score = row.get("score")
        if isinstance(score, bool) or not isinstance(score, int | float) or not isfinite(score):
            return f"data[{i}].score is no number"
    return None


def read_usage(body: Mapping[str, Any]) -> Usage | None:
    """Return the usage of a whole reply; an image has no tokens, so nothing said is zero."""
    return usage.read_usage(body.get("usage")) or Usage(input=0, output=0)
