"""Model folders that are not in order, and what happens around the import of onnxruntime."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aiproxy.reference_server.onnx import ModelUnavailable
from aiproxy.reference_server.onnx.text_model import DEMO_FOLDER, TextModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A private copy of the bundled model, without its recorded hashes."""
    copy = tmp_path / "secret-place"
    shutil.copytree(DEMO_FOLDER, copy)
    (copy / "SHA256SUMS").unlink()
    return copy


def reason_of(path: Path) -> str:
    with pytest.raises(ModelUnavailable) as unavailable:
        TextModel.load(str(path))
    assert "secret-place" not in str(unavailable.value)
    return unavailable.value.reason


def test_a_folder_and_the_bare_file_in_it_are_the_same_model(folder: Path) -> None:
    whole, bare = TextModel.load(str(folder)), TextModel.load(str(folder / "model.onnx"))
    assert whole.fingerprint == bare.fingerprint


def test_a_smaller_context_can_be_asked_for(folder: Path) -> None:
    assert TextModel.load(str(folder), context=100).context_window == 100
    assert TextModel.load(str(folder), context=10**6).context_window == 512


def test_a_missing_folder(tmp_path: Path) -> None:
    assert reason_of(tmp_path / "secret-place") == "model.onnx is missing or cannot be read"


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.onnx"])
def test_a_missing_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert reason_of(folder) == f"{name} is missing or cannot be read"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("model.onnx", b"not onnx", "the ONNX file is damaged or uses unknown operators"),
        ("model.onnx", b"", "the ONNX file is damaged or uses unknown operators"),
        ("tokenizer.json", b"{}", "tokenizer.json is damaged"),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json is damaged"),
        ("config.json", b"{", "config.json is not JSON"),
        ("config.json", b"[]", "config.json is not an object"),
        ("config.json", b"{}", "config.json does not describe a text model ('eos_token_id')"),
    ],
)
def test_a_damaged_file(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / name).write_bytes(content)
    assert reason_of(folder) == reason


def test_a_truncated_graph(folder: Path) -> None:
    graph = folder / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1000])
    assert reason_of(folder) == "the ONNX file is damaged or uses unknown operators"


def test_a_file_that_differs_from_its_recorded_hash(folder: Path) -> None:
    shutil.copy(DEMO_FOLDER / "SHA256SUMS", folder)
    with (folder / "tokenizer.json").open("a") as changed:
        changed.write(" ")
    assert reason_of(folder) == "tokenizer.json differs from its recorded hash; install it again"


def run_python(code: str, home: Path) -> str:
    """Run ``code`` with an empty home folder and without a telemetry variable; return its output."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_telemetry_is_off_before_onnxruntime_is_imported(tmp_path: Path) -> None:
    code = """
import os, sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "onnxruntime":
            print("telemetry", os.environ.get("ORT_DISABLE_TELEMETRY"))
sys.meta_path.insert(0, Watch())
from aiproxy.reference_server.onnx.text_model import TextModel
TextModel.load("builtin:demo")
"""
    assert run_python(code, tmp_path) == "telemetry 1\n"
    assert list(tmp_path.rglob("*")) == []


def test_importing_the_package_loads_no_runtime_and_its_absence_is_a_reason(tmp_path: Path) -> None:
    code = """
import sys
from aiproxy.reference_server.onnx import LocalModels
print(sorted({"onnxruntime", "numpy", "tokenizers"} & set(sys.modules)))
sys.modules["onnxruntime"] = None
models = LocalModels.from_config({"models": [{"name": "demo", "path": "builtin:demo"}]})
print(models.models[0].reason)
import logging
"""
    import_line, reason = run_python(
        "import logging; logging.disable()\n" + code, tmp_path
    ).splitlines()
    assert import_line == "[]"
    assert reason == "onnxruntime is missing; pip install 'aiproxy[onnx]'"
