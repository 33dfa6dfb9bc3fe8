"""The input of a prediction: texts for vectors, an image for labels (aiproxy §5.2).

The suite has no image model to put behind a target. One that the target lists itself is asked.
"""

from collections.abc import Iterator
from typing import Any, Final, TypeGuard

from aiproxy.conformance.bills import is_number
from aiproxy.conformance.case import Case
from aiproxy.conformance.checks import behind, check
from aiproxy.conformance.checks.predict import PREDICTS
from aiproxy.conformance.endpoint import MODELS
from aiproxy.conformance.pictures import data_url, square
from aiproxy.conformance.probe import Probe, say, tell
from aiproxy.conformance.reply import Reply
from aiproxy.conformance.results import Finding, Status
from aiproxy.conformance.rig.fleet import Fake
from aiproxy.spec import Invalid, validate

_CAPABILITIES: Final = "/v1/capabilities"
_IMAGES: Final = "image-classification"
_REFUSED: Final = "400 unsupported_capability"
# For models that compare an image with the words of a request.
_WORDS: Final = ("a red square", "a blue circle")


@check(
    "AIP-API-017",
    level=2,
    keyword="SHOULD",
    title="the input may be what the model's capability takes",
    clause="aiproxy §5.2",
    depends_on=PREDICTS,
)
@behind(e=Fake(capabilities=("embeddings",)))
def an_input_fits_the_capability(probe: Probe) -> Iterator[Finding]:
    me = "AIP-API-017"
    case = probe.case()
    reply = case.predict(input=[case.prompt("one"), case.prompt("two")])
    output = reply.object.get("output")
    vectors = output if isinstance(output, list) else []
    right = len(vectors) == 2 and all(isinstance(vector, list) and vector for vector in vectors)
    yield tell(
        me, "two texts for an embedding model", reply.status == 200 and right, reply,
        expected="two vectors",
    )  # fmt: skip
    wrong = probe.case().predict(input={"image": "AAAA"})
    yield tell(
        me, "an image for an embedding model", wrong.status == 400, wrong,
        expected=_REFUSED, found=f"{wrong.status} {wrong.error.get('code')}",
    )  # fmt: skip
    model, only = _lists(probe, _IMAGES)
    if not model:
        yield say(me, Status.UNSUPPORTED, f"no model of capability {_IMAGES} is listed")
        return
    yield from _labels(probe, me, model)
    yield from _no_image(probe, me, model, only=only)


def _lists(probe: Probe, capability: str) -> tuple[str, bool]:
    """Return a model that the target lists with ``capability``, or nothing, and whether it is
    listed with no other: such a one is preferred.

    ``capabilities`` of a document maps each word to its models; of an entry, it lists the words.
    """
    listed: dict[str, set[str]] = {}  # by model
    for path in (_CAPABILITIES, MODELS):
        document = probe.endpoint.get(path).object
        words = document.get("capabilities")
        for word, names in words.items() if isinstance(words, dict) else ():
            for name in names if isinstance(names, list) else ():
                if isinstance(name, str):
                    listed.setdefault(name, set()).add(word)
        rows = document.get("data")
        for row in rows if isinstance(rows, list) else ():
            can = row.get("capabilities") if isinstance(row, dict) else None
            name = next((row[m] for m in ("id", "name", "model") if row.get(m)), "") if can else ""
            if isinstance(can, list) and isinstance(name, str) and name:
                listed.setdefault(name, set()).update(word for word in can if isinstance(word, str))
    able = [name for name, can in listed.items() if capability in can]
    only = next((name for name in able if listed[name] == {capability}), "")
    return (only, True) if only else (next(iter(able), ""), False)


def _labels(probe: Probe, me: str, model: str) -> Iterator[Finding]:
    """The same image is sent twice: what it shows does not change."""
    image = data_url(square(probe.chance.randrange(18, 30)))
    reply = _classified(probe.case(), model, image)
    output = reply.object.get("output")
    if reply.status != 200 or not _are_labels(output):
        yield tell(me, "an image", False, reply, expected="200 with a list of label and score")
        return
    yield tell(
        me, "the answer to an image", not _invalid(reply), reply,
        expected="a prediction", found=_invalid(reply),
    )  # fmt: skip
    scores = [row["score"] for row in output]
    yield tell(
        me, "the scores", all(0 <= score <= 1 for score in scores), reply,
        expected="from 0 to 1", found=repr(scores)[:80],
    )  # fmt: skip
    yield tell(
        me, "their order", scores == sorted(scores, reverse=True), reply,
        expected="falling", found=repr(scores)[:80],
    )  # fmt: skip
    again = _classified(probe.case(), model, image)
    seen, later = [row["label"] for row in output], again.object.get("output")
    same = _are_labels(later) and [row["label"] for row in later] == seen
    yield tell(
        me, "the same image again", same, again,
        expected=f"the labels {seen!r}"[:120], found=repr(later)[:120],
    )  # fmt: skip


def _classified(case: Case, model: str, image: str) -> Reply:
    """Return the answer to an image: to the image alone, or else to one with words to choose of."""
    reply = case.predict(model=model, input={"image": image})
    if reply.status != 400:
        return reply
    chosen = case.predict(model=model, input={"image": image, "labels": _WORDS})
    return chosen if chosen.status == 200 else reply


def _are_labels(output: object) -> TypeGuard[list[Any]]:
    rows = output if isinstance(output, list) else []
    return bool(rows) and all(
        isinstance(row, dict) and isinstance(row.get("label"), str) and is_number(row.get("score"))
        for row in rows
    )


def _invalid(reply: Reply) -> str:
    """Return why a body is no prediction, or nothing."""
    try:
        validate(reply.json, "responses/predict")
    except Invalid as wrong:
        return str(wrong)[:160]
    return ""


def _no_image(probe: Probe, me: str, model: str, *, only: bool) -> Iterator[Finding]:
    """An address is one of the suite's own: nobody may come and fetch what lies there. ``only``: a
    text is nothing that the model takes."""
    case = probe.case()
    address = f"{case.cast['e'].endpoint}/{case.nonce}.png"
    reply = case.predict(model=model, input={"image": address})
    yield _declined(me, "an address in place of an image", reply, "400 with an error object")
    yield tell(
        me, "what lies at the address", not case.attempts(), reply,
        expected="not fetched", found="a request for it",
    )  # fmt: skip
    if only:
        text = probe.case().predict(model=model)
        yield _declined(me, "a text for an image model", text, _REFUSED)


def _declined(me: str, what: str, reply: Reply, expected: str) -> Finding:
    told = reply.status == 400 and isinstance(reply.error.get("message"), str)
    return tell(me, what, told, reply, expected=expected)
