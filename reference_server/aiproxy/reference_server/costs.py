"""Rows for ``aiproxy costs``."""

from datetime import date
from typing import Any, Final

from aiproxy.middleware.config import Config
from aiproxy.middleware.money.amounts import usd
from aiproxy.middleware.money.ledger import path_of, report

_NAMES: Final = ("day", "key", "provider", "model")


class BadQuestion(ValueError):
    """An option of ``aiproxy costs`` that cannot be answered."""


def cost_rows(config: Config, by: str, since: str) -> tuple[list[dict[str, Any]], float]:
    """The sums of a configuration's ledger by the names in ``by``, and their total in US dollars.

    Raises:
        BadQuestion: a name or a day that is none.
        LedgerUnusable: there is no ledger, or the file is something else.
    """
    names = [name.strip() for name in by.split(",") if name.strip()]
    wrong = [name for name in names if name not in _NAMES]
    if wrong:
        raise BadQuestion(f"--by: found {wrong[0]}, expected some of {', '.join(_NAMES)}")
    try:
        first = date.fromisoformat(since).isoformat() if since else ""
    except ValueError:
        raise BadQuestion(f"--since: found {since}, expected a day as YYYY-MM-DD") from None
    url = config.values["budget"]["cost_db"]
    if url is not None and not url.startswith("sqlite:"):
        raise BadQuestion("budget.cost_db: expected sqlite:///, the only ledger of this release")
    rows = report(path_of(url), names, first)
    told = [
        {**{k: v for k, v in row.items() if k != "cost"}, "cost_usd": usd(row["cost"])}
        for row in rows
    ]
    return told, usd(sum(row["cost"] for row in rows))
