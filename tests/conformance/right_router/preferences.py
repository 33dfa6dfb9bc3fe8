"""X-AI request headers to values: which are known, what each may say, how a bad one is refused.

Names compare without regard to case, values of closed sets too. A list may come on several lines;
a single value may be repeated only if it says the same. Parsed from the raw lines by hand, so that
no shared table can be wrong in both places.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from right_server import Refusal

from right_router.settings import canonical

TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PROVIDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
WHOLE = re.compile(r"[1-9][0-9]{0,8}")
AMOUNT = re.compile(r"(0|[1-9][0-9]{0,8})(\.[0-9]{1,9})?")
SHARE = re.compile(r"0(\.[0-9]{1,9})?|1(\.0{1,9})?")
HINTS = {
    "reasoning", "coding", "creative", "analytical", "multimodal",
    "support", "medical", "financial", "marketing", "product",
}  # fmt: skip
CATEGORY_ALIASES = {
    "code-exec": "code-execution",
    "code_execution": "code-execution",
    "web_search": "web-search",
    "image_generation": "image-generation",
}
Has = Callable[[str], bool]


@dataclass(frozen=True)
class Field:
    """One header: its name, how its value reads, and what it is for."""

    name: str
    kind: str
    role: str
    attribute: str
    values: tuple[str, ...] = ()


FIELDS = {
    field.name.lower(): field
    for field in (
        Field("X-AI-Multi-Provider", "enum", "control", "switch", ("enabled", "disabled")),
        Field("X-AI-Provider-Pool", "providers", "constraint", "pool"),
        Field("X-AI-Routing-Strategy", "strategy", "preference", "strategy"),
        Field("X-AI-Task-Hint", "hint", "hint", "hint"),
        Field("X-AI-Tool-Categories", "categories", "preference", "categories"),
        Field(
            "X-AI-Reasoning-Preference", "enum", "preference", "reasoning",
            ("native", "enhanced", "simulated"),
        ),
        Field("X-AI-Quality-Threshold", "share", "constraint", "quality"),
        Field("X-AI-Max-Latency", "whole", "constraint", "max_latency_ms"),
        Field("X-AI-Cost-Limit", "amount", "constraint", "cost_limit"),
        Field(
            "X-AI-Failover-Policy", "enum", "control", "failover",
            ("none", "manual", "automatic", "cascading"),
        ),
        Field("X-AI-Conversation-ID", "name", "workflow", "conversation"),
        Field("X-AI-Workflow-Step", "name", "workflow", "step"),
        Field("X-AI-Parent-Conversation", "name", "workflow", "parent"),
        Field("X-AI-Workflow-Branch", "token", "workflow", "branch"),
        Field("X-AI-Merge-Branches", "tokens", "workflow", "merge"),
        Field("X-AI-Security-Requirements", "tokens", "constraint", "labels"),
        Field("X-AI-Data-Classification", "token", "constraint", "data_class"),
    )
}  # fmt: skip


class Preferences:
    """What the headers of one request say; what they leave out is None or empty."""

    def __init__(self) -> None:
        self.said: dict[str, str] = {}
        self.ignored: list[tuple[str, str]] = []
        self.switch: str | None = None
        self.pool: tuple[str, ...] | None = None
        self.strategy: str | None = None
        self.hint: str | None = None
        self.categories: tuple[str, ...] = ()
        self.reasoning: str | None = None
        self.quality: float | None = None
        self.max_latency_ms: int | None = None
        self.cost_limit: Decimal | None = None
        self.failover: str | None = None
        self.conversation: str | None = None
        self.step: str | None = None
        self.parent: str | None = None
        self.branch: str | None = None
        self.merge: tuple[str, ...] = ()
        self.labels: tuple[str, ...] = ()
        self.data_class: str | None = None

    @property
    def active(self) -> bool:
        """Whether any header of the draft came."""
        return bool(self.said)


def read(
    lines: Iterable[tuple[str, bytes]], has: Has, most: int = 2048, lenient: bool = False
) -> Preferences:
    """Return what the header lines say.

    Raises:
        Refusal: 400 ``invalid_header_value`` or 431 ``header_too_large``; the parameter is the
            header's name, the raw value is never repeated.
    """
    found = Preferences()
    for name, values in grouped(lines, has).items():
        field = FIELDS[name]
        try:
            texts = [clean(field, value, most, has) for value in values]
            value = parse(field, joined(field, texts, has), has)
        except Refusal:
            if not (lenient and field.role in ("preference", "hint")):
                raise
            found.said[field.name] = ""
            found.ignored.append((field.name, "invalid_value"))
            continue
        found.said[field.name] = ", ".join(texts)
        if field.kind == "hint" and value not in HINTS:
            found.ignored.append((field.name, "unrecognised_value" if value else "empty"))
            if has("unknown-hint-400"):
                raise bad(field, "unknown")
            continue
        setattr(found, field.attribute, value)
    return found


def grouped(lines: Iterable[tuple[str, bytes]], has: Has) -> dict[str, list[bytes]]:
    """Return the known headers, each with its values in the order they came."""
    found: dict[str, list[bytes]] = {}
    for name, value in lines:
        known = name.lower()
        if has("header-case") and not name.startswith("X-AI-"):
            continue
        if known in FIELDS:
            found.setdefault(known, []).append(value)
    return found


def clean(field: Field, value: bytes, most: int, has: Has) -> str:
    """Return one line's value as text without the space around it."""
    if len(value) > most and not has("long-header-ok"):
        raise Refusal(431, "header_too_large", f"{field.name} is too long", field.name)
    if any((octet < 32 and octet != 9) or octet > 126 for octet in value):
        if has("control-octets-500"):
            raise Refusal(500, "internal_error", "surprise")
        if not has("control-octets-ok"):
            raise bad(field, "only visible ASCII is allowed")
    text = value.decode("latin-1")
    return text.removeprefix(" ") if has("header-space-kept") else text.strip(" \t")


def joined(field: Field, texts: list[str], has: Has) -> str:
    """Return the one value of several lines."""
    if field.kind in ("providers", "tokens", "categories"):
        return texts[0] if has("csv-first-line-only") else ",".join(texts)
    if len(set(texts)) > 1 and not has("duplicate-takes-last"):
        raise bad(field, "sent twice with different values")
    return texts[-1]


def parse(field: Field, text: str, has: Has) -> Any:
    """Return the value a text stands for."""
    if not text and field.kind != "hint":
        if has("empty-header-ignored") and field.kind in ("enum", "providers"):
            return () if field.kind in ("tokens", "categories") else None
        raise bad(field, "the value is empty")
    reader = READERS[field.kind]
    return reader(field, text, has)


def read_enum(field: Field, text: str, has: Has) -> str | None:
    value = text.lower()
    if field.attribute == "switch" and has("switch-true-ok") and value in ("true", "on", "1"):
        return "enabled"
    if field.attribute == "switch" and has("switch-case") and text != value:
        raise bad(field, "enabled or disabled")
    if field.attribute == "failover" and has("unknown-policy-ok") and value not in field.values:
        return None
    if (
        field.attribute == "reasoning"
        and has("unknown-preference-ok")
        and value not in field.values
    ):
        return None
    if value not in field.values:
        raise bad(field, f"expected one of {', '.join(field.values)}")
    return value


def read_strategy(field: Field, text: str, has: Has) -> str | None:
    value = canonical(text)
    if value is None and not has("unknown-strategy-ok"):
        raise bad(field, "unknown strategy")
    return value


def read_hint(field: Field, text: str, has: Has) -> str:
    if text and not TOKEN.fullmatch(text):
        raise bad(field, "one token")
    value = text.lower()
    if has(f"hint-{value}-400"):
        raise bad(field, "unknown")
    return "reasoning" if value in ("reasoning-optimized", "reasoning_optimized") else value


def read_token(field: Field, text: str, has: Has) -> str:
    pattern = NAME if field.kind == "name" else TOKEN
    if field.attribute == "branch" and has("branch-any-name"):
        return text
    if not pattern.fullmatch(text):
        raise bad(field, "one token")
    return text


def read_list(field: Field, text: str, has: Has) -> tuple[str, ...]:
    pattern = PROVIDER if field.kind == "providers" else TOKEN
    members = text.split(",")
    if field.kind != "providers" or not has("pool-spaces-kept"):
        members = [member.strip(" \t") for member in members]
    members = [member for member in members if member]
    if not members or not all(pattern.fullmatch(member) for member in members):
        raise bad(field, "a list of ids")
    if field.kind == "categories":
        aliases = {} if has("code-exec-unknown") else CATEGORY_ALIASES
        members = [aliases.get(member.lower(), member) for member in members]
    if field.kind == "providers" and has("pool-duplicates-kept"):
        return tuple(members)
    return tuple(dict.fromkeys(members))


def read_whole(field: Field, text: str, has: Has) -> int:
    if has("latency-any-number") and re.fullmatch(r"[0-9.]+(ms|s)?", text):
        return max(1, int(float(text.rstrip("ms"))))
    if not WHOLE.fullmatch(text):
        raise bad(field, "a positive whole number of milliseconds")
    return int(text)


def read_share(field: Field, text: str, has: Has) -> float:
    if has("quality-clamped"):
        try:
            return min(1.0, max(0.0, float(text.replace(",", "."))))
        except ValueError:
            return 0.0
    if has("exponent-quality-ok") and re.fullmatch(r"\de-?\d", text):
        return float(text)
    if not SHARE.fullmatch(text):
        raise bad(field, "a decimal from 0.0 to 1.0")
    return float(text)


def read_amount(field: Field, text: str, has: Has) -> Decimal:
    if has("amount-with-sign") and text.startswith("$"):
        text = text[1:]
    if not AMOUNT.fullmatch(text):
        raise bad(field, "an amount of US dollars, 0 or more")
    return Decimal(text)


READERS: dict[str, Callable[[Field, str, Has], Any]] = {
    "enum": read_enum,
    "strategy": read_strategy,
    "hint": read_hint,
    "token": read_token,
    "name": read_token,
    "tokens": read_list,
    "providers": read_list,
    "categories": read_list,
    "whole": read_whole,
    "share": read_share,
    "amount": read_amount,
}


def bad(field: Field, expected: str) -> Refusal:
    """Return the refusal of a bad value."""
    return Refusal(400, "invalid_header_value", f"{field.name}: {expected}", field.name)
