"""What the demo model knows: one ``Fact`` is one answer and the ways to ask for it.

Header, configuration, error and provider facts are read from ``aiproxy.spec``; the few that the
schemas do not hold (commands, how to mount, levels) are written here. ``subjects`` are names a
template can be filled with; ``direct`` are whole questions. The last fifth of ``direct`` questions
and the held-out templates of ``phrasings.py`` never reach the training data.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from aiproxy.spec import HEADERS, HeaderField, schema

LONGEST_ANSWER: Final = 330  # characters; about 70 tokens

VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "X-AI-Routing-Strategy": {
        "cost": "picks the cheapest candidate that meets every constraint",
        "latency": "picks the candidate expected to answer fastest",
        "quality": "picks the candidate with the highest declared quality",
        "capability-first": "picks the candidate whose capabilities fit the request best",
        "balanced": "weighs cost, latency and quality by routing.weights",
        "availability": "picks the candidate with the best recent health",
        "round_robin": "takes the candidates in turn",
    },
    "X-AI-Failover-Policy": {
        "none": "makes one attempt and reports its failure",
        "manual": "makes one attempt, then answers 503 failover_required with the alternatives",
        "automatic": "moves on to the next eligible provider",
        "cascading": "is automatic and may also give up strategy and preferences, never constraints",
    },
    "X-AI-Multi-Provider": {
        "enabled": "lets any eligible provider serve the auto parameters",
        "disabled": "sends the request to the default provider alone, without failover",
    },
    "X-AI-Reasoning-Preference": {
        "native": "asks for a model with its own reasoning mode",
        "enhanced": "asks for a model that reasons well on instruction",
        "simulated": "adds one marked instruction to reason step by step",
    },
    "X-AI-Task-Hint": {
        "reasoning": "says the task needs step by step reasoning",
        "coding": "says the task is about code",
        "creative": "says the task is creative writing",
        "analytical": "says the task is analysis",
        "multimodal": "says the task has images or other media",
    },
}
VALUE_KIND: Final = {
    "X-AI-Routing-Strategy": "strategy",
    "X-AI-Failover-Policy": "failover policy",
    "X-AI-Multi-Provider": "multi provider setting",
    "X-AI-Reasoning-Preference": "reasoning preference",
    "X-AI-Task-Hint": "task hint",
}
# Questions that describe what a header is for without naming it.
PURPOSES: Final[Mapping[str, tuple[str, ...]]] = {
    "X-AI-Max-Latency": (
        "limit the latency of a request",
        "get only fast providers",
        "set a maximum latency",
        "cap the response time",
    ),
    "X-AI-Cost-Limit": (
        "limit the cost of a request",
        "cap what a request may cost",
        "use free providers only",
        "set a price limit for one call",
    ),
    "X-AI-Quality-Threshold": (
        "ask for a minimum quality",
        "require good models only",
        "set a quality floor",
    ),
    "X-AI-Provider-Pool": (
        "restrict which providers are used",
        "choose the allowed providers",
        "only use certain providers",
        "limit the request to some providers",
    ),
    "X-AI-Routing-Strategy": (
        "pick the routing strategy",
        "optimise for cost or latency",
        "choose what to optimise",
    ),
    "X-AI-Task-Hint": (
        "say what kind of task it is",
        "give a hint about the task",
        "tell the router the task type",
    ),
    "X-AI-Tool-Categories": ("prefer certain tool categories", "choose tool categories"),
    "X-AI-Reasoning-Preference": ("choose the kind of reasoning", "prefer native reasoning"),
    "X-AI-Failover-Policy": (
        "control failover",
        "turn failover off for one request",
        "choose what happens when a provider fails",
    ),
    "X-AI-Multi-Provider": (
        "switch multi provider routing on or off",
        "disable orchestration for a request",
        "enable several providers",
    ),
    "X-AI-Security-Requirements": (
        "require hipaa",
        "require security labels",
        "ask for compliant providers",
    ),
    "X-AI-Data-Classification": (
        "declare the class of my data",
        "mark data as sensitive",
        "classify the data",
    ),
    "X-AI-Conversation-ID": ("continue a conversation", "name the conversation"),
    "X-AI-Parent-Conversation": (
        "name the parent conversation",
        "continue from a parent conversation",
    ),
    "X-AI-Workflow-Step": ("label a workflow step", "name the workflow step"),
    "X-AI-Workflow-Branch": ("open a workflow branch", "start a branch"),
    "X-AI-Merge-Branches": ("merge workflow branches", "join branches"),
    "X-AI-Provider-Used": ("see which provider answered", "find out who served the request"),
    "X-AI-Model-Mapped": ("see which model was really used", "learn the upstream model name"),
    "X-AI-Auto-Selection": ("see how the model was chosen", "read the selection criteria"),
    "X-AI-Auto-Decisions": ("see how auto parameters were resolved", "read the auto decisions"),
    "X-AI-Tool-Mapping": ("see which provider tool stands for a category", "read the tool mapping"),
    "X-AI-Alternatives-Considered": ("see which candidates were rejected", "list the alternatives"),
    "X-AI-Selection-Confidence": (
        "see how sure the choice was",
        "read the confidence of the selection",
    ),
    "X-AI-Failover-Occurred": (
        "tell whether failover happened",
        "see if another provider had to step in",
    ),
}
# What a header is about, in nouns.
TOPICS: Final[Mapping[str, tuple[str, ...]]] = {
    "X-AI-Max-Latency": ("latency", "speed", "response time", "fast answers"),
    "X-AI-Cost-Limit": ("cost", "price", "money", "the cost of a request"),
    "X-AI-Quality-Threshold": ("quality", "model quality", "minimum quality"),
    "X-AI-Provider-Pool": ("allowed providers", "the choice of providers"),
    "X-AI-Routing-Strategy": ("the strategy", "what is optimised"),
    "X-AI-Task-Hint": ("the task type", "the kind of task"),
    "X-AI-Tool-Categories": ("tools", "kinds of tools"),
    "X-AI-Reasoning-Preference": ("reasoning", "thinking models"),
    "X-AI-Failover-Policy": ("failover", "failing providers", "retries at other providers"),
    "X-AI-Multi-Provider": ("the master switch", "orchestration"),
    "X-AI-Security-Requirements": ("hipaa", "compliance", "security labels"),
    "X-AI-Data-Classification": ("the class of data", "sensitive data"),
    "X-AI-Conversation-ID": ("conversations", "the conversation"),
    "X-AI-Workflow-Step": ("workflow steps",),
    "X-AI-Workflow-Branch": ("branches",),
    "X-AI-Merge-Branches": ("merging", "merged branches"),
    "X-AI-Provider-Used": ("the provider that answered",),
    "X-AI-Model-Mapped": ("the model really used",),
    "X-AI-Selection-Confidence": ("confidence",),
    "X-AI-Alternatives-Considered": ("rejected candidates",),
}
LEVELS: Final = {
    1: "Level 1, Basic: an HTTP server with one provider and the OpenAI-compatible API.",
    2: "Level 2, Multi-Provider: several providers, basic routing and failover.",
    3: "Level 3, Intelligent: routing by cost and latency, and load balancing.",
    4: "Level 4, Federated: a mesh of nodes that route to each other.",
    5: "Level 5, Production: full security, observability, high availability and compliance.",
}


@dataclass(frozen=True, slots=True)
class Fact:
    """``group`` names the set of templates in ``phrasings.py``; ``family`` is what accuracy is told by."""

    family: str
    group: str
    subjects: tuple[str, ...]
    answer: str
    direct: tuple[str, ...] = ()


def facts() -> tuple[Fact, ...]:
    """Return every fact, in a stable order."""
    from demo_model.guide import guide_facts

    found = (
        *header_facts(),
        *value_facts(),
        *config_facts(),
        *error_facts(),
        *provider_facts(),
        *level_facts(),
        *guide_facts(),
    )
    long = [fact.answer for fact in found if len(fact.answer) > LONGEST_ANSWER]
    if long:
        raise ValueError(f"answers above {LONGEST_ANSWER} characters: {long}")
    return found


def header_facts() -> Iterator[Fact]:
    # A header nobody has described by its purpose yet is known by its name only.
    paths = {fold(path) for path, _ in config_keys(schema("config"), "")}
    for name, field in HEADERS.items():
        bare = name.removeprefix("X-AI-")
        # "routing strategy" folds to the configuration key routing.strategy: that reading wins.
        subjects = (name, f"{name} header", *(() if fold(bare) in paths else (bare,)))
        kind = " and ".join(sorted(field.directions)) + " header"
        about = f"{name} is a {kind} ({field.role}). {field.description}"
        yield Fact("headers", "about", subjects, shorten(about))
        yield Fact("headers", "values", subjects, header_values(field))
        yield Fact("headers", "header_default", subjects, header_default(field))
        yield Fact("headers", "header_source", subjects, f"{name} comes from {field.source}.")
        yield Fact("headers", "header_direction", subjects, header_direction(field))
        if name in PURPOSES:
            sent = f"Send the header {name}, for example {header_example(field)}"
            read = f"Read the response header {name}."
            answer = sent if "request" in field.directions else read
            yield Fact("headers", "purpose", PURPOSES[name], answer)
            if name in TOPICS:
                yield Fact("headers", "topic", TOPICS[name], answer)


def header_direction(field: HeaderField) -> str:
    match sorted(field.directions):
        case ["request"]:
            return f"{field.name} is a request header: the client sends it."
        case ["response"]:
            return f"{field.name} is a response header: the proxy sends it."
        case _:
            return f"{field.name} goes both ways: clients may send it and the proxy sends it."


def header_example(field: HeaderField) -> str:
    """Return a header line with a telling value: not a zero, and a list where lists are allowed."""
    telling = [
        value for value in field.accepted if value not in ("0", "0.0", "1", "1.0", "[]", "{}")
    ]
    listed = [
        value for value in telling if field.wire == "csv" and "," in value and " " not in value
    ]
    return f"{field.name}: {(listed or telling or list(field.accepted))[0]}"


def header_values(field: HeaderField) -> str:
    expected = schema(field.schema_name).get("x-aiproxy-expected")
    if field.closed:
        return f"{field.name} takes one of: {', '.join(field.values)}."
    if field.values:
        return f"{field.name} takes values such as {', '.join(field.values[:6])}; the set is open. Example: {header_example(field)}"
    kind = (
        expected
        or {
            "csv": "a comma-separated list",
            "json": "one line of JSON",
            "boolean": "true or false",
            "token": "one token",
            "decimal": "a decimal",
            "integer": "a whole number",
        }[field.wire]
    )
    return shorten(f"{field.name} holds {kind}. Example: {header_example(field)}")


def header_default(field: HeaderField) -> str:
    if "request" not in field.directions:
        return f"{field.name} has no default: it is a response header."
    if field.default is None:
        return f"{field.name} is optional and has no default; left out, it asks for nothing."
    return f"The default of {field.name} is {field.default}."


def value_facts() -> Iterator[Fact]:
    for name, meanings in VALUES.items():
        kind = VALUE_KIND[name]
        for value, meaning in meanings.items():
            if value not in HEADERS[name].values:
                raise ValueError(f"{name} no longer has the value {value}")
            subjects = (
                f"{kind} {value}",
                f"{value} {kind}",
                f"{name}: {value}",
                f"the {value} {kind}",
            )
            yield Fact("values", "about", subjects, f"The {kind} {value} {meaning}.")


def config_facts() -> Iterator[Fact]:
    keys = dict(config_keys(schema("config"), ""))
    leaves = {fold(name.removeprefix("X-AI-")): 2 for name in HEADERS}
    for path in keys:
        for tail in tails(path):
            leaves[fold(tail)] = leaves.get(fold(tail), 0) + 1
    for path, node in keys.items():
        short = tuple(
            t for t in tails(path) if leaves[fold(t)] == 1 and t != path and " " in fold(t)
        )
        subjects = (path, *short, *((path.replace("<id>", "openai"),) if "<id>" in path else ()))
        yield Fact("config", "config", subjects, config_answer(path, node))


def config_keys(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield ``(dotted path, schema)`` of every key; list items are ``models[]``, free keys ``<id>``."""
    node = resolved(node)
    if "x-alias-of" in node:
        return
    if path and not path.endswith(("[]", "<id>")):
        yield path, node
    for key, child in node.get("properties", {}).items():
        required = {"x-required": key in node.get("required", ())}
        yield from config_keys({**child, **required}, f"{path}.{key}" if path else key)
    extra = node.get("additionalProperties")
    if isinstance(extra, dict):
        yield from config_keys(extra, f"{path}.<id>")
    if isinstance(node.get("items"), dict):
        yield from config_keys(node["items"], f"{path}[]")


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    target = node.get("$ref")
    if not isinstance(target, str):
        return node
    document, _, pointer = target.removeprefix("urn:aiproxy:schema:").partition("#")
    found: Any = schema(document or "config")
    for step in filter(None, pointer.split("/")):
        found = found[step]
    return {**resolved(found), **{key: value for key, value in node.items() if key != "$ref"}}


def tails(path: str) -> Iterator[str]:
    """Yield the path and its endings: ``a.b.c``, ``b.c``, ``c``."""
    parts = path.split(".")
    for start in range(len(parts)):
        if parts[start] != "<id>":
            yield ".".join(parts[start:])


def fold(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def config_answer(path: str, node: Mapping[str, Any]) -> str:
    kind = config_type(node)
    if "properties" in node and "default" not in node:
        keys = list(resolved(node)["properties"])
        return shorten(
            f"{path} is a section: {node.get('description', '')} Keys: {', '.join(keys[:8])}{' and more' if len(keys) > 8 else ''}."
        )
    choices = [str(value) for value in node.get("enum", ()) if value is not None]
    listed = f" One of: {', '.join(choices)}." if 0 < len(choices) <= 7 else ""
    return shorten(
        f"{path} ({kind}, {config_default(node)}): {node.get('description', '')}{listed}"
    )


def config_type(node: Mapping[str, Any]) -> str:
    if "x-unit" in node and node["x-unit"] in ("duration", "size", "url", "path", "host:port"):
        return str(node["x-unit"])
    kind = node.get("type", "any")
    kinds = [kind] if isinstance(kind, str) else [name for name in kind if name != "null"]
    words = {"array": "list", "object": "mapping", "number": "number", "boolean": "true or false"}
    return " or ".join(words.get(name, name) for name in kinds)


def config_default(node: Mapping[str, Any]) -> str:
    if "default" not in node:
        return "required" if node.get("x-required") else "no default"
    value = node["default"]
    if value in ([], {}):
        return "default empty"
    return f"default {yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix('...' + chr(10)).strip()}"


def error_facts() -> Iterator[Fact]:
    table = schema("error")["x-aiproxy-errors"]
    of_status: dict[int, list[str]] = {}
    for code, row in table.items():
        statuses = row["statuses"]
        where = f"HTTP {' or '.join(map(str, statuses))}" if statuses else "in a stream"
        subjects = (code, f"error {code}", f"code {code}")
        yield Fact("errors", "error", subjects, shorten(f"{code} ({where}): {row['description']}"))
        for status in statuses:
            of_status.setdefault(status, []).append(code)
    for status, codes in sorted(of_status.items()):
        answer = shorten(f"Status {status} comes with: {', '.join(codes)}.")
        subjects = (str(status), f"status {status}", f"HTTP {status}")
        yield Fact("errors", "status", subjects, answer)


def provider_facts() -> Iterator[Fact]:
    from importlib.resources import files

    catalogue = yaml.safe_load(
        files("aiproxy.spec").joinpath("catalog/providers.yaml").read_text("utf-8")
    )
    for name, row in catalogue.items():
        needs = row.get("required", ())
        variables = [names[0] for key, names in row.get("environment", {}).items() if key in needs]
        if not variables:
            continue
        body = ", ".join(
            f'{key}: "${{{row["environment"][key][0]}}}"'
            for key in needs
            if key in row["environment"]
        )
        example = f"providers: {{{name}: {{type: {name}, credentials: {{{body}}}}}}}"
        yaml.safe_load(example)
        subjects = (name, str(row["title"]).split(",")[0].split(" (")[0])
        yield Fact(
            "providers",
            "provider",
            tuple(dict.fromkeys(subjects)),
            f"Set {' and '.join(variables)} in the environment, or write {example}",
        )


def level_facts() -> Iterator[Fact]:
    for number, answer in LEVELS.items():
        name = answer.split(":")[0].split(", ")[1]
        words = ("one", "two", "three", "four", "five")[number - 1]
        yield Fact(
            "levels",
            "level",
            (
                f"level {number}",
                f"level {words}",
                f"compliance level {number}",
                f"the {name} level",
            ),
            answer,
        )


def shorten(text: str) -> str:
    """Return ``text`` cut after the last whole sentence that fits the longest answer."""
    text = " ".join(text.split())
    while len(text) > LONGEST_ANSWER:
        cut = max(text.rfind(". ", 0, -1), text.rfind("; ", 0, -1))
        if cut < 40:
            raise ValueError(f"no sentence of this fits {LONGEST_ANSWER} characters: {text}")
        text = text[:cut] + "."
    return text
