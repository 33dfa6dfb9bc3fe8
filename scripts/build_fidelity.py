"""Writes docs/reference/fidelity.md: what becomes of each feature between each pair of dialects.

python scripts/build_fidelity.py            # write the page
python scripts/build_fidelity.py --check    # exit 1 when the committed page is not what it would be

The cells come from the grid that tests/dialects/fidelity proves: nothing here is typed by hand.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "dialects"))

from fidelity import reply_grid, request_grid
from fidelity.request_grid import Cell, ingresses, there

from aiproxy.middleware.dialects.codecs import SPOKEN_FOR, codec

PAGE: Final = ROOT / "docs" / "reference" / "fidelity.md"
_NOTE: Final = "<!-- made by scripts/build_fidelity.py from tests/dialects/fidelity -->\n"
TITLES: Final = {
    "chat": "Chat Completions",
    "responses": "Responses",
    "draft": "the draft's Responses",
    "anthropic": "Anthropic Messages",
    "gemini": "Gemini",
    "completions": "Completions",
    "mistral": "Mistral",
    "cohere": "Cohere v2",
    "workers_ai": "Workers AI",
}


def page() -> str:
    """Return the text of the page."""
    return _NOTE + "\n".join(_page()).rstrip() + "\n"


def _page() -> Iterator[str]:
    yield "# Fidelity\n"
    yield (
        "What becomes of each feature on its way from the dialect a client speaks to the one a "
        "provider speaks, and of each answer on its way back. Every cell is a test: the body is "
        "read again by an independent reader of the provider's (or the client's) language, and "
        "what it does not find there has to be declared. No cell is silent.\n"
    )
    yield (
        "- **kept**: the other side understands all of it.\n"
        "- *lossy* and names: a part does not arrive, or arrives in another form. It is declared "
        "under these names in the `losses` of the [decision record](decision-record.md) and of "
        "`x-aiproxy`; `routing.strict_translation` refuses instead.\n"
        "- *refused*: without it the request has no meaning there; such a provider is not a "
        "candidate.\n"
        "- *-*: the sender's language has no words for it.\n"
    )
    yield "## Requests\n"
    yield "Asking for a stream changes no cell.\n"
    for ingress in ingresses():
        targets = [name for name in SPOKEN_FOR[ingress] if there(name)]
        yield f"### From {TITLES[ingress]}\n"
        rows = (
            (name, *(_shown(request_grid.cell(ingress, t, name, False)) for t in targets))
            for name in request_grid.FEATURES
        )
        yield _table(("feature", *(TITLES[t] for t in targets)), rows)
    yield "## Answers\n"
    yield "Where a streamed answer fares differently, its cell follows after a slash.\n"
    for ingress in ingresses():
        if not hasattr(codec(ingress), "encode_reply"):
            continue
        sources = [name for name in SPOKEN_FOR[ingress] if there(name)]
        yield f"### To {TITLES[ingress]}\n"
        rows = (
            (name, *(_answer(s, ingress, name) for s in sources)) for name in reply_grid.BY_NAME
        )
        yield _table(("answer", *(TITLES[s] for s in sources)), rows)
    yield "## In numbers\n"
    yield _table(("", "kept", "lossy", "refused", "silent"), _numbers())


def _shown(cell: Cell) -> str:
    if cell.state == "kept":
        return "**kept**"
    if cell.state == "unsaid":
        return "-"
    return " ".join([f"*{cell.state}*", ", ".join(f"`{name}`" for name in cell.told)]).strip()


def _answer(source: str, ingress: str, name: str) -> str:
    whole, streamed = (reply_grid.cell(source, ingress, name, stream) for stream in (False, True))
    if whole == streamed:
        return _shown(whole)
    return f"{_shown(whole)} / {_shown(streamed)}"


def _numbers() -> Iterator[tuple[str, ...]]:
    asked = Counter(
        request_grid.cell(ingress, egress, name, stream).state
        for ingress in ingresses()
        for egress in SPOKEN_FOR[ingress]
        if there(egress)
        for name in request_grid.FEATURES
        for stream in (False, True)
    )
    answered = Counter(
        reply_grid.cell(source, ingress, name, stream).state
        for ingress in ingresses()
        if hasattr(codec(ingress), "encode_reply")
        for source in SPOKEN_FOR[ingress]
        if there(source)
        for name in reply_grid.BY_NAME
        for stream in (False, True)
    )
    for title, counted in (("requests", asked), ("answers", answered)):
        yield (title, *(str(counted[state]) for state in ("kept", "lossy", "refused", "silent")))


def _table(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def main(arguments: Sequence[str]) -> int:
    text = page()
    fresh = PAGE.is_file() and PAGE.read_text("utf-8") == text
    if "--check" in arguments and not fresh:
        print("docs/reference/fidelity.md is stale; run scripts/build_fidelity.py")
        return 1
    if not fresh:
        PAGE.write_text(text, "utf-8")
    print("docs/reference/fidelity.md: " + ("up to date" if fresh else "written"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
