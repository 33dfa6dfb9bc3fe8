"""Which of the operator's tool categories a request is about, when the client names none.

Deterministic and published like the task classes: the words of the last user turn are looked up in
``WORDS``. No category, or none that is listed, means that every listed one stays on offer: leaving a
tool out is worth it only where the text says which one is meant (draft section 5, step 3).
"""

from collections.abc import Iterable, Mapping
from re import compile as compile_pattern
from typing import Any, Final

from aiproxy.middleware.classify import last_user_text

_LONGEST: Final = 4000
_WORD: Final = compile_pattern(r"[a-z]+")

WORDS: Final[Mapping[str, frozenset[str]]] = {
    name: frozenset(text.split())
    for name, text in {
        "web-search": "search google bing internet online web news latest website websites browse",
        "web-scraping": "scrape scraper scraping crawl crawler extract website websites",
        "code-execution": "run execute python script compute calculate code program simulate",
        "image-generation": "image picture draw drawing paint illustration logo photo sketch",
        "weather": "weather forecast temperature rain snow sunny celsius fahrenheit",
        "data-viz": "chart plot graph visualize visualise visualization diagram dashboard",
        "data-analysis": "analyze analyse analysis dataset csv spreadsheet statistics",
        "file-search": "file files document documents pdf attachment",
        "retrieval": "document documents knowledge lookup retrieve archive",
        "reporting": "report summary summarize summarise",
        "maps": "map maps route directions nearby restaurant restaurants",
    }.items()
}


def meant(body: Mapping[str, Any], listed: Iterable[str]) -> tuple[str, ...]:
    """Return the listed categories a request is about; all of them when it does not say."""
    names = tuple(listed)
    if len(names) < 2:
        return names
    text = last_user_text(body)[:_LONGEST].lower()
    words = frozenset(_WORD.findall(text))
    return tuple(name for name in names if words & WORDS.get(name, frozenset())) or names
