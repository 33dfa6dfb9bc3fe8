"""Writes docs/reference/ from the specification: no fact in those pages is typed by hand.

python scripts/build_reference.py            # write the files
python scripts/build_reference.py --check    # exit 1 when a committed file is not what it would be
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aiproxy.spec import (
    HEADERS,
    HeaderField,
    freeze,
    profiles,
    requirement,
    requirements,
    schema,
)
from aiproxy.spec.catalog import presets

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "docs" / "reference"
#: The run of the suite that the trace is told from; see scripts/build_trace.
RECORDED: Final = ROOT / "conformance" / "reports" / "aiproxy" / "report.json"
_NOTE: Final = "<!-- made by scripts/build_reference.py; edit the specification instead -->\n"
_NOTE_TRACE: Final = """\
---
orphan: true
---
<!-- made by scripts/build_trace from a recorded run -->
"""
_WIRES: Final = {
    "token": "one token",
    "csv": "a comma-separated list; may come on several lines",
    "decimal": "a decimal number",
    "integer": "a whole number",
    "boolean": "`true` or `false`",
    "json": "one line of JSON, ASCII only",
}
#: Units whose kind is shown in place of ``string``: their pattern says the rest.
_SPELLED: Final = frozenset({"duration", "size", "url", "host:port", "date"})


def pages() -> dict[str, str]:
    """Return the text of every page by file name."""
    makers: dict[str, Callable[[], Iterator[str]]] = {
        "headers.md": headers_page,
        "config.md": config_page,
        "errors.md": errors_page,
        "decision-record.md": decision_page,
        "providers.md": providers_page,
        "levels.md": levels_page,
    }
    made = {name: _NOTE + "\n".join(make()).rstrip() + "\n" for name, make in makers.items()}
    made["fidelity.md"] = fidelity()
    return made | ({"trace.md": trace()} if RECORDED.is_file() else {})


# --- headers -------------------------------------------------------------------------------------


def headers_page() -> Iterator[str]:
    yield "# X-AI headers\n"
    yield (
        f"All {len(HEADERS)} header fields of the registry. Names and enumerated values compare "
        "without regard to case; spaces and tabs around a value are dropped. In the draft's terms "
        "a *closed* set takes the listed values only; an *open* set reports and ignores others "
        "or takes them as they are, by role.\n"
    )
    yield table(
        ("header", "direction", "role", "form"),
        (
            (f"[{f.name}](#{f.name.lower()})", _direction(f), f.role, f.wire)
            for f in HEADERS.values()
        ),
    )
    for field in HEADERS.values():
        yield from _header(field)


def _header(field: HeaderField) -> Iterator[str]:
    document = schema(field.schema_name)
    wire = document["x-aiproxy-header"]
    yield f"## {field.name}\n"
    yield field.description + "\n"
    rows = [
        ("direction", _direction(field)),
        ("role", field.role),
        ("form", _WIRES[field.wire]),
        ("values", _values(field)),
        ("other spellings", _aliases(field)),
        ("bounds", _header_bounds(field, document)),
        ("default", "none" if field.default is None else f"`{json.dumps(field.default)}`"),
        ("a bad value", wire.get("on_error")),
        ("source", field.source),
        ("requirements", ", ".join(field.requirements)),
    ]
    yield table(("", ""), ((name, value) for name, value in rows if value))
    yield "Accepted: " + ", ".join(map(_wire_example, field.accepted)) + "\n"
    if field.refused:
        yield "Refused: " + ", ".join(map(_wire_example, field.refused)) + "\n"


def _direction(field: HeaderField) -> str:
    return " and ".join(sorted(field.directions))


def _values(field: HeaderField) -> str:
    if not field.values:
        return "open"
    kind = "closed" if field.closed else "open; known"
    return f"{kind}: " + ", ".join(f"`{value}`" for value in field.values)


def _aliases(field: HeaderField) -> str:
    by_value: dict[str, list[str]] = {}
    for alias, value in field.aliases.items():
        by_value.setdefault(value, []).append(alias)
    return "; ".join(
        ", ".join(f"`{alias}`" for alias in names) + f" for `{value}`"
        for value, names in by_value.items()
    )


def _header_bounds(field: HeaderField, document: Mapping[str, Any]) -> str:
    found = [document["x-aiproxy-expected"]] if "x-aiproxy-expected" in document else []
    found += limits(document)
    found.append(f"{field.max_octets} octets")
    return "; ".join(found)


def _wire_example(text: str) -> str:
    return "*(empty)*" if not text else f"`{_visible(text)}`"


def _visible(text: str) -> str:
    """Control characters and anything beyond ASCII as escapes; long values by their length."""
    if len(text) > 120:
        return f"{_visible(text[:24])}... ({len(text)} octets)"
    return text.encode("unicode_escape").decode("ascii").replace("`", "'")


# --- configuration -------------------------------------------------------------------------------


def config_page() -> Iterator[str]:
    document = schema("config")
    yield "# Configuration\n"
    yield (
        "Every key, by section. `<id>` and `<name>` stand for names you choose, `[]` for the items "
        "of a list. Durations are a number and `ms`, `s`, `m` or `h`; sizes a number and `B`, "
        "`KB`, `MB`, `GB` (decimal) or `KiB`, `MiB`, `GiB`. `${NAME}` and `${NAME:-default}` read "
        "the environment. *required* means: where its parent is given.\n\n"
        "`aiproxy config schema` prints the schema this page is made from, `aiproxy config check "
        "FILE` holds a file against it. A key that loads may still have no effect in this "
        "release: see [run](../run.md#settings-this-release-does-not-honour).\n"
    )
    for name, section in document["properties"].items():
        node = _resolved(section)
        yield f"## {name}\n"
        rows = list(_keys(name, node, required=False, top=True))
        first = rows[0]
        yield (node.get("description") or "") + "\n"
        yield table(
            ("key", "type", "unit", "default", "bounds", "what it is"),
            rows if len(rows) == 1 else (row for row in rows if row is not first),
        )


def _resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The node with its reference into the same document followed; its own words win."""
    reference = node.get("$ref", "")
    if not reference.startswith("#/$defs/"):
        return node
    target = _resolved(schema("config")["$defs"][reference.rpartition("/")[2]])
    return {**target, **{key: value for key, value in node.items() if key != "$ref"}}


def _keys(
    path: str, node: Mapping[str, Any], *, required: bool, top: bool = False
) -> Iterator[tuple[str, ...]]:
    """The row of a key and those of everything below it."""
    default = "*required*" if required else _default(node)
    description = ("" if top else node.get("description") or "") + (
        " Secret: masked in every output." if node.get("x-secret") else ""
    )
    bounds = "; ".join(limits(node))
    unit = node.get("x-unit", "")
    unit = "" if unit in _SPELLED else unit
    yield (f"`{path}`", kinds(node), unit, default, bounds, description)
    needed = node.get("required", ())
    for name, inner in (node.get("properties") or {}).items():
        yield from _keys(f"{path}.{name}", _resolved(inner), required=name in needed)
    for branch in (*node.get("anyOf", ()), *node.get("oneOf", ())):
        branch = _resolved(branch)
        for name, inner in (branch.get("properties") or {}).items():
            yield from _keys(f"{path}.{name}", _resolved(inner), required=False)
    items = node.get("items")
    if isinstance(items, Mapping):
        yield from _below(f"{path}[]", _resolved(items))
    others = node.get("additionalProperties")
    if isinstance(others, Mapping):
        placeholder = "<id>" if path == "providers" else "<name>"
        yield from _below(f"{path}.{placeholder}", _resolved(others))


def _below(path: str, node: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The keys of the members of a list or mapping; a plain member has no row of its own."""
    rows = list(_keys(path, node, required=False))
    yield from rows[1:]


def kinds(node: Mapping[str, Any]) -> str:
    """The types of a value, in words."""
    if "anyOf" in node or "oneOf" in node:
        branches = [_resolved(b) for b in (*node.get("anyOf", ()), *node.get("oneOf", ()))]
        return " or ".join(dict.fromkeys(kinds(branch) for branch in branches))
    given = node.get("type")
    names = [given] if isinstance(given, str) else list(given or ())
    found = []
    for name in names:
        if name == "array":
            items = node.get("items")
            inner = kinds(_resolved(items)) if isinstance(items, Mapping) else "anything"
            found.append(f"list of {inner}")
        elif name == "string" and node.get("x-unit") in _SPELLED:
            found.append(node["x-unit"])
        else:
            found.append("mapping" if name == "object" else name)
    if not found and "$ref" in node:
        return f"`{node['$ref'].removeprefix('urn:aiproxy:schema:')}`"
    if not found and "const" in node:
        return f"`{json.dumps(node['const'])}`"
    return " or ".join(found) or ("string" if "enum" in node else "anything")


def _default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return ""
    value = node["default"]
    return "" if value is None else f"`{json.dumps(value)}`"


def limits(node: Mapping[str, Any]) -> list[str]:
    """What bounds a value, in words."""
    if "enum" in node:
        named = [value for value in node["enum"] if value is not None]
        return [" ".join(f"`{json.dumps(value)}`".replace('"', "") for value in named)]
    found = []
    low, high = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if low is not None and high is not None:
        found.append(f"{_number(low)} to {_number(high)}")
    elif low is not None:
        found.append(f"at least {_number(low)}")
    elif high is not None and above is None:
        found.append(f"at most {_number(high)}")
    if above is not None:
        upper = f", at most {_number(high)}" if high is not None else ""
        found.append(f"above {_number(above)}{upper}")
    if below is not None:
        found.append(f"below {_number(below)}")
    if "minItems" in node:
        found.append(f"at least {node['minItems']} items")
    if "maxItems" in node:
        found.append(f"at most {node['maxItems']} items")
    expected = node.get("x-aiproxy-expected")
    if expected and not found and not node.get("x-aiproxy-header"):
        found.append(expected)
    return found


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else f"{value:g}"


# --- errors --------------------------------------------------------------------------------------


def errors_page() -> Iterator[str]:
    yield "# Errors\n"
    yield (
        "Every refusal and failure has the OpenAI error object. `message` says what was found, "
        "what was expected and the next step; `param` names the header or the body path at fault; "
        "clients should act on `code`.\n"
    )
    yield "<!-- schema: error-emitted -->\n"
    yield "```json\n" + _example_error() + "\n```\n"
    rows = schema("error")["x-aiproxy-errors"]
    yield table(
        ("code", "status", "type", "meaning", "for the client"),
        (
            (
                f"`{code}`",
                " or ".join(map(str, row["statuses"])),
                f"`{row['type']}`",
                row["description"],
                _advice(row),
            )
            for code, row in rows.items()
        ),
    )
    yield "What an operator does about each: [run](../run.md#what-each-error-means).\n"


def _example_error() -> str:
    row = schema("error")["x-aiproxy-errors"]["invalid_header_value"]
    error = {
        "message": "X-AI-Max-Latency: expected a positive whole number of milliseconds.",
        "type": row["type"],
        "param": "X-AI-Max-Latency",
        "code": "invalid_header_value",
    }
    return json.dumps({"error": error}, indent=2)


def _advice(row: Mapping[str, Any]) -> str:
    found = []
    if row.get("retry_after"):
        found.append("`Retry-After` says when")
    if row.get("should_retry") is not None:
        found.append(f"`x-should-retry: {json.dumps(row['should_retry'])}`")
    return "; ".join(found)


# --- the decision record -------------------------------------------------------------------------


def decision_page() -> Iterator[str]:
    document = schema("decision")
    yield "# Decision record\n"
    yield document["description"] + "\n"
    yield (
        "`aiproxy explain` prints it without attempts; where `routing.scope` is `all`, "
        "`GET /v1/routing/decisions/{id}` gives the record of a recent request. It holds no "
        "prompt text, credentials, hosts or paths.\n"
    )
    yield from _object("Fields", document, document["required"])
    for name, node in document["$defs"].items():
        yield from _object(f"`{name}`", node, node.get("required", ()))
    yield "## Reason codes\n"
    groups = schema("reason-codes")["$defs"]
    for name, node in groups.items():
        yield f"**{name}**: " + ", ".join(f"`{code}`" for code in node["enum"]) + "\n"
    yield "## As response headers\n"
    yield (
        "Sent when the request carried X-AI headers and `transparency` is not `none`; with "
        "`minimal` the JSON-valued ones stay away.\n"
    )
    yield table(
        ("header", "form", "what it tells"),
        (
            (f"[{f.name}](headers.md#{f.name.lower()})", f.wire, f.description)
            for f in HEADERS.values()
            if "response" in f.directions
        ),
    )
    yield "## As `x-aiproxy` in a body\n"
    told = schema("x-aiproxy")
    yield told["description"] + "\n"
    yield table(
        ("member", "type", "present", "what it is"),
        (
            (
                f"`{name}`",
                _decision_kind(node),
                "always" if name in told["required"] else "where it applies",
                node.get("description", ""),
            )
            for name, node in told["properties"].items()
        ),
    )
    for example in told.get("examples", ()):
        yield "<!-- schema: x-aiproxy -->\n"
        yield "```json\n" + json.dumps(example, indent=2) + "\n```\n"


def _object(title: str, node: Mapping[str, Any], required: Sequence[str]) -> Iterator[str]:
    if "properties" not in node:
        return
    yield f"## {title}\n"
    rows: list[tuple[str, ...]] = []
    for name, inner in node["properties"].items():
        rows.append(_member(name, inner, always=name in required))
        rows += [
            _member(f"{name}.{below}", deeper, always=below in inner.get("required", ()))
            for below, deeper in (inner.get("properties") or {}).items()
        ]
    yield table(("field", "type", "present", "what it is"), rows)


def _member(name: str, node: Mapping[str, Any], *, always: bool) -> tuple[str, ...]:
    told = "always" if always else "where it applies"
    bounds = "; ".join(limits(node)) if "enum" in node or "maximum" in node else ""
    description = ". ".join(filter(None, (node.get("description", "").rstrip("."), bounds)))
    return f"`{name}`", _decision_kind(node), told, description


def _decision_kind(node: Mapping[str, Any]) -> str:
    reference = node.get("$ref")
    if reference:
        _, _, fragment = reference.partition("#/$defs/")
        return f"`{fragment or reference.rpartition(':')[2]}`"
    if "anyOf" in node:
        return " or ".join(_decision_kind(branch) for branch in node["anyOf"])
    if node.get("type") == "array":
        return f"list of {_decision_kind(node.get('items', {}))}"
    return kinds(node)


# --- providers -----------------------------------------------------------------------------------


def providers_page() -> Iterator[str]:
    known = presets()
    yield "# Provider catalogue\n"
    yield (
        "`providers.<id>.type` is one of these names; left out, the id itself is taken. Address, "
        "dialects and credential come from the catalogue and can be overridden in the "
        "configuration. A dialect a provider lacks is reached by translation; what one speaks "
        "besides is used when `dialects` names it. Models are yours to list. Prices are too; where "
        "you give none, those of the price data count, if it has the provider's (*prices*) and "
        "it is called at its own address.\n"
    )
    yield "## Reached over the network\n"
    yield _providers(p for p in known.values() if p.transport == "http" and not p.local)
    yield "## Servers on your own machines\n"
    yield (
        "Price 0 unless you say otherwise; they satisfy `local_only`. Those with a probe are "
        "found by `aiproxy serve` without a configuration.\n"
    )
    yield table(
        ("type", "what", "base URL", "dialects", "probe"),
        (
            (f"`{p.name}`", p.title, _url(p), ", ".join(p.dialects), "yes" if p.probe else "no")
            for p in known.values()
            if p.transport == "http" and p.local
        ),
    )
    yield "## Not over HTTP\n"
    yield table(
        ("type", "what", "dialects"),
        (
            (f"`{p.name}`", p.title, ", ".join(p.dialects))
            for p in known.values()
            if p.transport != "http"
        ),
    )

    yield "## Differences\n"
    yield (
        "What is done to a chat request on its way to a provider whose chat API differs from the "
        "reference. What a client would notice is a declared loss; another name for the same "
        "wish, or leaving out what asks for nothing, is not.\n"
    )
    yield table(
        ("type", "models", "renamed", "left out", "other values", "bounds", "roles"),
        (row for p in known.values() for row in _differences(p.name, "all", p.quirks)),
    )


def _differences(name: str, models: str, rules: Any) -> Iterator[tuple[str, ...]]:
    cells = (
        ", ".join(f"`{old}` as `{new}`" for old, new in rules.rename.items()),
        ", ".join(f"`{parameter}`" for parameter in rules.drop),
        ", ".join(
            [f"`{p}` {old} as {new}" for p, to in rules.values.items() for old, new in to.items()]
            + [f"`{p}` only {' or '.join(map(str, kept))}" for p, kept in rules.only.items()]
        ),
        ", ".join(f"`{p}` {low:g} to {high:g}" for p, (low, high) in rules.limits.items()),
        ", ".join(f"{old} as {new}" for old, new in rules.roles.items()),
    )
    if any(cells):
        yield (f"`{name}`", models, *cells)
    for glob, more in rules.models.items():
        yield from _differences(name, f"`{glob}`", more)


def _providers(rows: Iterator[Any]) -> str:
    return table(
        ("type", "what", "base URL", "dialects", "also", "credential", "usual variable", "prices"),
        (
            (
                f"`{p.name}`",
                p.title,
                _url(p),
                ", ".join(p.dialects),
                ", ".join(p.also),
                ", ".join(f"`{name}`" for name in p.required) or "none needed",
                ", ".join(f"`{v}`" for names in p.environment.values() for v in names),
                "known" if p.prices else "",
            )
            for p in rows
        ),
    )


def _url(preset: Any) -> str:
    return f"`{preset.base_url}`" if preset.base_url else f"yours, usually with `{preset.path}`"


# --- levels --------------------------------------------------------------------------------------


def levels_page() -> Iterator[str]:
    from aiproxy.conformance.checks import catalogue
    from aiproxy.conformance.scoring import CONTROLLED, OBSERVE, scored

    every, frozen = requirements(), freeze()
    checks = [row for scenario in catalogue() for row in scenario.checks]
    yield "# Compliance levels\n"
    yield (
        f"The register has {len(every)} requirements. A level is reached when every scored one of "
        "it and of the levels below it holds: a MUST that is frozen for this release, is more "
        "than a rule of our own house, and has a check. A URL alone shows only some of level 1; "
        "those are what a run in mode `observe` scores.\n"
    )
    yield table(
        ("level", "frozen MUSTs", "all rows", "checks", "scored: controlled", "scored: observe"),
        (
            (
                str(level),
                str(len(ids)),
                str(sum(row.level == level for row in every)),
                str(sum(row.level == level for row in checks)),
                str(len(scored(CONTROLLED).get(level, ()))),
                str(len(scored(OBSERVE).get(level, ()))),
            )
            for level, ids in frozen.levels.items()
        ),
    )
    for level, ids in frozen.levels.items():
        yield f"## Level {level}\n"
        families = Counter(requirement(name).family for name in ids)
        visible = Counter(requirement(name).observable for name in ids)
        yield table(
            ("family", "requirements"),
            ((f"`{family}`", str(count)) for family, count in sorted(families.items())),
        )
        yield (
            "How they can be seen: "
            + ", ".join(f"{count} {how}" for how, count in sorted(visible.items()))
            + ".\n"
        )
    if RECORDED.is_file():
        yield "What a recorded run of the reference server looked at, row by row: [trace](trace.md).\n"
    yield from _profiles()
    yield from _exceptions()
    yield from _checks()


def _profiles() -> Iterator[str]:
    from aiproxy.conformance.profiles import core_of, profile_rows

    yield "## Profiles\n"
    yield (
        "Graded beside the levels. The core are the MUSTs with a check and what the profile "
        "demands beside them; it decides. Softer rows and optional features are the extended "
        "part, which is counted.\n"
    )
    rows = []
    for profile in profiles().values():
        core = core_of(profile.name)
        extended = [row.id for row in profile_rows(profile.name) if row.id not in core]
        families, demands = (
            " ".join(f"`{name}`" for name in names) for names in (profile.families, profile.demands)
        )
        rows.append(
            (f"`{profile.name}`", profile.title, families, demands, len(core), len(extended))
        )
    yield table(("profile", "what", "families", "demands beside", "core", "extended"), rows)


def _exceptions() -> Iterator[str]:
    frozen = freeze()
    for title, text, rows in (
        (
            "Optional features",
            "What a target may lack altogether: its checks are *unsupported* where the manifest says so.",
            frozen.features,
        ),
        (
            "May be refused",
            "An honest refusal of these does not stand in the way of a level.",
            frozen.may_refuse,
        ),
        ("Not scored", "Looked at and shown; these decide nothing.", frozen.not_scored),
    ):
        if rows:
            yield f"## {title}\n"
            yield text + "\n"
            yield table(("name", "why"), ((f"`{name}`", why) for name, why in rows.items()))


def _checks() -> Iterator[str]:
    from aiproxy.conformance.checks import catalogue, derived_rows
    from aiproxy.conformance.scoring import CONTROLLED, scored

    yield "## Checks of this release\n"
    yield (
        "*scored*: decides its level. *may fail*: can be red without deciding a level. *warns*: a "
        "softer clause. *repeats*: holds exactly when others do. A check with a world needs "
        "providers that the suite controls; the world is the configuration it runs in.\n"
    )
    deciding = {name for ids in scored(CONTROLLED).values() for name in ids}
    yield table(
        ("requirement", "level", "weight", "world", "feature", "what is looked at", "clause"),
        (
            *(
                (
                    f"`{c.id}`", str(c.level), _weight(c, deciding),
                    scenario.fleet.world.name if scenario.fleet else "",
                    c.feature, c.title, c.clause,
                )
                for scenario in catalogue()
                for c in scenario.checks
            ),
            *(
                (f"`{d.id}`", str(d.level), "repeats", "", "", d.title, d.clause)
                for d in derived_rows()
            ),
        ),
    )  # fmt: skip


def _weight(check: Any, deciding: set[str]) -> str:
    from aiproxy.conformance.scoring import may_fail

    if check.id in deciding:
        return "scored"
    return "may fail" if may_fail(check) else "warns"


# --- fidelity ------------------------------------------------------------------------------------


def fidelity() -> str:
    """The grid that tests/dialects/fidelity proves."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from build_fidelity import page

    return page()


# --- trace ---------------------------------------------------------------------------------------


def trace() -> str:
    """The trace of the recorded run."""
    from aiproxy.conformance.trace import trace_page

    return _NOTE_TRACE + trace_page(json.loads(RECORDED.read_bytes()))


# --- writing -------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Any) -> str:
    """A Markdown table, with the blank line after it."""
    lines = [_row(head), "|" + "---|" * len(head), *map(_row, rows)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    shown = (str(cell).replace("|", "\\|").replace("\n", " ").strip() for cell in cells)
    return "| " + " | ".join(shown) + " |"


def main(arguments: Sequence[str]) -> int:
    stale = []
    for name, text in pages().items():
        path = FOLDER / name
        if path.is_file() and path.read_text("utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in arguments:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    if "--check" in arguments and stale:
        print(f"docs/reference: stale: {', '.join(stale)}; run scripts/build_reference.py")
        return 1
    print("docs/reference: " + (f"wrote {', '.join(stale)}" if stale else "up to date"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
