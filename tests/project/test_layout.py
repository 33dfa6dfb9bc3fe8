"""The shape of the repository: roots, dependency direction, what ships, what must not be there."""

import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOTS = ("spec", "middleware", "reference_server", "conformance")
ALLOWED = {
    "spec": {"spec"},
    "middleware": {"spec", "middleware"},
    "conformance": {"spec", "conformance"},
    "reference_server": {"spec", "middleware", "reference_server", "conformance"},
}


def sources(root: str) -> list[Path]:
    return sorted((ROOT / root).rglob("*.py"))


def test_the_namespace_has_no_init_module() -> None:
    found = [root for root in ROOTS if (ROOT / root / "aiproxy" / "__init__.py").exists()]
    assert found == [], "an aiproxy/__init__.py hides the other three roots"


@pytest.mark.parametrize("root", ROOTS)
def test_every_package_is_marked_as_typed(root: str) -> None:
    assert (ROOT / root / "aiproxy" / root / "py.typed").exists()


@pytest.mark.parametrize("root", ROOTS)
def test_imports_follow_the_dependency_direction(root: str) -> None:
    wrong = []
    for path in sources(root):
        for node in ast.walk(ast.parse(path.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
                if node.module == "aiproxy":
                    names = [f"aiproxy.{alias.name}" for alias in node.names]
            for name in names:
                parts = name.split(".")
                if parts[0] == "aiproxy" and len(parts) > 1 and parts[1] not in ALLOWED[root]:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} imports {name}")
    assert wrong == []


def test_the_mounts_decide_nothing() -> None:
    """An ``if`` about providers, headers' meaning or levels belongs in the core."""
    for name in ("asgi.py", "wsgi.py"):
        text = (ROOT / "middleware/aiproxy/middleware" / name).read_text()
        imported = {
            alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert not imported & {"Planner", "understand", "parse_headers", "Intent", "Registry"}


def test_the_plugin_imports_nothing_but_pytest_and_the_standard_library() -> None:
    tree = ast.parse((ROOT / "conformance/pytest_aiproxy.py").read_text())
    top = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    }
    assert not top & {"aiproxy", "httpx", "jsonschema", "yaml", "orjson"}


def test_no_file_names_a_private_place() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    wrong = []
    for name in listed:
        path = ROOT / name
        if not path.is_file() or path.suffix in (".onnx", ".png", ".gz"):
            continue
        text = path.read_text(errors="replace")
        for private in (
            "/" + "work/main",
            "/" + "work/shared",
            "/" + "tmp/k/",
            "shared/" + "source",
        ):
            if private in text:
                wrong.append(f"{name}: {private}")
    assert wrong == []
