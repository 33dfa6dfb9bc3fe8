"""Image classification as ``/aiproxy/predict`` asks for it: a body in, labels out.

The body is the one of ``dialects.classifications`` in the middleware. Refusals name the members as
the client of ``/aiproxy/predict`` wrote them (``input.image``).
"""

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from aiproxy.reference_server.onnx.errors import RequestRefused

if TYPE_CHECKING:  # at run time a model brings numpy with it: an extra
    from aiproxy.reference_server.onnx.vectors.images import Classifier, ClipModel

Json: TypeAlias = dict[str, Any]

MOST_LABELS: Final = 256
#: Characters of base64: a little more than the largest image that is decoded.
_MOST_CHARACTERS: Final = 48 * 1024 * 1024
_IMAGE: Final = "input.image"
_ELSEWHERE: Final = ("http:", "https:", "ftp:", "file:", "s3:", "gs:")


@dataclass(frozen=True, slots=True)
class ImageTask:
    """A request, understood: one encoded image, the labels to choose among, how many to answer."""

    data: bytes
    labels: tuple[str, ...] | None
    top_k: int | None


async def classify(model: "Classifier | ClipModel", body: Mapping[str, Any]) -> Json:
    """Answer a classification request; unknown members are left alone.

    Raises:
        RequestRefused: 400 for a body this model cannot answer.
        LocalError: busy, failed or closed.
    """
    task = read_classification(body)
    found = await model.classify(task.data, task.labels, task.top_k)
    return {
        "object": "list",
        "model": body.get("model") or model.name,
        "data": [{"label": label, "score": score} for label, score in found],
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }


def read_classification(body: Mapping[str, Any]) -> ImageTask:
    """Return what a classification body asks.

    Raises:
        RequestRefused: a member is missing, has the wrong type, or is no image.
    """
    return ImageTask(read_image(body.get("image")), _labels(body), _top_k(body))


def read_image(given: object) -> bytes:
    """Return the bytes of an image: base64, a data URL, or ``{"data", "media_type"?}``.

    Raises:
        RequestRefused: it is none of these; an address is never followed.
    """
    kind: object = None
    if isinstance(given, Mapping):
        kind, given = given.get("media_type"), given.get("data")
    if given is None:
        raise RequestRefused("missing_required_parameter", "the image is missing", _IMAGE)
    if not isinstance(given, str):
        raise RequestRefused("invalid_type", "an image is a string of base64", _IMAGE)
    if len(given) > _MOST_CHARACTERS:
        raise RequestRefused("invalid_value", "the image is too large", _IMAGE)
    text = given.strip() if given[:1].isspace() else given
    if text[:8].lower().startswith(_ELSEWHERE):
        raise RequestRefused(
            "unsupported_parameter",
            "images are not fetched from elsewhere: send the image itself, as base64",
            _IMAGE,
        )
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise RequestRefused("invalid_value", "a data URL must hold base64", _IMAGE)
        kind = head[5:].partition(";")[0] or kind
    if kind is not None and not (isinstance(kind, str) and kind.lower().startswith("image/")):
        raise RequestRefused("invalid_value", "the media type is none of an image", _IMAGE)
    try:
        data = b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        # Tools wrap base64 at 76 characters: taken once more without the line ends.
        data = _unwrapped(text)
    if not data:
        raise RequestRefused("invalid_value", "the image is empty", _IMAGE)
    return data


def _unwrapped(text: str) -> bytes:
    try:
        return b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused(
            "unsupported_capability",
            "this model takes an image, as base64; the input is none",
            _IMAGE,
        ) from None


def _labels(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    found: object = body.get("labels")
    if found is None:
        return None
    if not isinstance(found, Sequence) or isinstance(found, str):
        raise RequestRefused("invalid_type", "labels must be an array of strings", "input.labels")
    if not 1 <= len(found) <= MOST_LABELS:
        raise RequestRefused(
            "invalid_value", f"labels must be 1 to {MOST_LABELS} strings", "input.labels"
        )
    for place, label in enumerate(found):
        where = f"input.labels[{place}]"
        if not isinstance(label, str):
            raise RequestRefused("invalid_type", "a label is a string", where)
        if not label.strip():
            raise RequestRefused("invalid_value", "a label is empty", where)
    return tuple(found)


def _top_k(body: Mapping[str, Any]) -> int | None:
    found = body.get("top_k")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int):
        raise RequestRefused("invalid_type", "top_k must be an integer", "input.top_k")
    if found < 1:
        raise RequestRefused("invalid_value", "top_k must be at least 1", "input.top_k")
    return found
