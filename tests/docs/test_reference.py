"""The documentation says what is so: made pages are fresh, links lead somewhere, examples work."""

import importlib.util
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from aiproxy.middleware.config import load_config
from aiproxy.reference_server.simulate import load
from aiproxy.spec import HEADERS, names, schema, validate

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
GUIDES = [page for page in PAGES if page.parent.name not in ("decisions", "reference")]
CODE_ROOTS = ("spec/", "middleware/", "reference_server/", "conformance/", "scripts/", "tests/",
              "examples/", "benchmarks/", "docs/")  # fmt: skip
_FENCE = re.compile(r"^( *)(```+)(\S*)\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")
_NAMED = re.compile(r"<!-- schema: (\S+) -->\s*\Z")
_VARIABLE = re.compile(r"\$\{(\w+)")


@dataclass(frozen=True)
class Block:
    """One fenced block. ``schema`` is what a comment right before it names."""

    page: str
    line: int
    language: str
    text: str
    schema: str | None

    @property
    def source(self) -> str | None:
        """The file an excerpt says it is from."""
        first = self.text.lstrip().partition("\n")[0]
        return first.removeprefix("# from ") if first.startswith("# from ") else None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(language: str) -> list[Any]:
    found = [b for page in PAGES for b in _blocks(page) if b.language == language]
    return [pytest.param(block, id=str(block)) for block in found]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        indent = len(match[1])
        body = "".join(line[indent:] for line in match[4].splitlines(keepends=True))
        named = _NAMED.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        yield Block(str(page.relative_to(ROOT)), line, match[3], body, named[1] if named else None)


def page_names(paths: list[Path]) -> list[Any]:
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    spec = importlib.util.spec_from_file_location(
        "build_reference", ROOT / "scripts" / "build_reference.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[str, str] = module.pages()
    assert pages == module.pages(), "two runs differ"
    return pages


def test_the_reference_pages_are_what_the_script_makes(made: dict[str, str]) -> None:
    folder = ROOT / "docs" / "reference"
    committed = {path.name: path.read_text("utf-8") for path in folder.iterdir()}
    stale = sorted(n for n in made.keys() | committed if made.get(n) != committed.get(n))
    assert stale == [], "run scripts/build_reference.py"


def test_every_header_is_described_with_its_examples(made: dict[str, str]) -> None:
    text = made["headers.md"]
    missing = [f.name for f in HEADERS.values() if f"## {f.name}\n" not in text]
    assert (len(HEADERS), missing) == (25, [])
    assert text.count("\nAccepted: ") == 25


def test_every_configuration_key_has_a_row(made: dict[str, str]) -> None:
    """Counted over the schema in another way than the script walks it."""
    rows = re.findall(r"^\| `([^`]+)` \|", made["config.md"], re.MULTILINE)
    sections = set(re.findall(r"^## (\w+)$", made["config.md"], re.MULTILINE))
    last = sections | {re.split(r"\.|\[\]", row.removesuffix("[]"))[-1] for row in rows}
    assert _property_names(schema("config")) - last == set()
    assert len(rows) == len(set(rows)), "a key has two rows"


def _property_names(node: Any) -> set[str]:
    if isinstance(node, list):
        return set().union(*map(_property_names, node))
    if not isinstance(node, dict):
        return set()
    own = set(node["properties"]) if isinstance(node.get("properties"), dict) else set()
    return own.union(*map(_property_names, node.values()))


def test_the_operations_page_speaks_of_every_error_code_and_failure() -> None:
    text = (ROOT / "docs" / "run.md").read_text("utf-8")
    said = set(re.findall(r"`(\w+)`", text))
    foreign = {"client_disconnected", "provider_a_timeout"}  # the client's, and a figure's
    failures = set(schema("reason-codes")["$defs"]["failure"]["enum"]) - foreign
    assert set(schema("error")["x-aiproxy-errors"]) - said == set()
    assert failures - said == set()


@pytest.mark.parametrize("page", page_names(PAGES))
def test_internal_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in _anchors(path)):
            broken.append(target)
    assert broken == []


def _anchors(page: Path) -> set[str]:
    found = set()
    for heading in re.findall(r"^#{1,3} (.+)$", page.read_text("utf-8"), re.MULTILINE):
        kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(kept.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", page_names(GUIDES))
def test_files_that_are_named_exist(page: Path) -> None:
    quoted = re.findall(r"`([\w./-]+/[\w./-]*)`", page.read_text("utf-8"))
    named = [path for path in quoted if path.startswith(CODE_ROOTS)]
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("block", blocks("yaml"))
def test_configurations_load(block: Block, tmp_path: Path) -> None:
    document = yaml.safe_load(block.text)
    if block.source is not None:
        _is_an_excerpt(block)
        return
    if "traffic" in document:
        (tmp_path / "scenario.yaml").write_text(block.text)
        main = {"type": "ollama", "models": [{"name": "chat"}]}
        scenario = load(tmp_path / "scenario.yaml", config={"providers": {"main": main}})
        assert scenario.templates
        return
    assert set(document) <= set(schema("config")["properties"]), "not a configuration"
    file = tmp_path / "aiproxy.yaml"
    file.write_text(block.text)
    env = dict.fromkeys(_VARIABLE.findall(block.text), "dummy-value-of-24-chars.")
    config = load_config(file, env=env)
    assert (config.problems, config.warnings) == ((), ())


@pytest.mark.parametrize("block", blocks("python"))
def test_python_compiles_or_is_really_there(block: Block) -> None:
    if block.source is None:
        compile(block.text, str(block), "exec")
    else:
        _is_an_excerpt(block)


def _is_an_excerpt(block: Block) -> None:
    assert block.source is not None
    shown = [line.strip() for line in block.text.strip().splitlines()[1:]]
    there = [line.strip() for line in (ROOT / block.source).read_text("utf-8").splitlines()]
    windows = (there[i : i + len(shown)] for i in range(len(there)))
    assert shown in windows, f"{block.source} does not say this any more"


@pytest.mark.parametrize("block", blocks("json"))
def test_json_examples_hold_to_the_schema_they_name(block: Block) -> None:
    document = json.loads(block.text)
    if block.schema is not None:
        assert block.schema in names()
        validate(document, block.schema)


def test_schemas_are_named_where_they_can_be() -> None:
    named = {b.schema for page in PAGES for b in _blocks(page) if b.schema is not None}
    assert named == {"error-emitted", "x-aiproxy"}
