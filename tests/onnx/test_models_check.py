"""``aiproxy models check``: what it says of a folder, and its exit codes."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from bert_graph import write_tiny
from click.testing import CliRunner, Result
from tiny_images import LABELS, write_classifier
from tiny_models import make_tiny_llama, tiny_llama

from aiproxy.reference_server.cli.commands import aiproxy
from aiproxy.reference_server.onnx.folders import DEMO, DEMO_FOLDER


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(aiproxy, ["models", "check", *map(str, arguments)])


def report(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """The exit code and the JSON."""
    done = run(*arguments, "--json")
    return done.exit_code, json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("paged", "adapter", "cache"), [(True, "genai", "paged"), (False, "slots", "per request")]
)
def test_a_text_model_that_works(paged: bool, adapter: str, cache: str) -> None:
    code, said = report(tiny_llama(paged=paged), "--device", "cpu")
    assert code == 0
    expected = {
        "serves": True,
        "problem": None,
        "kind": "genai",
        "capabilities": ["text-generation"],
        "context_tokens": 256,
        "vocabulary": 1024,
        "chat_template": "jinja",
        "adapter": adapter,
        "cache": cache,
        "device": "cpu",
        "device_reason": "the configuration says cpu",
        "worker": "thread",
        "trial": "one token",
        "notes": [],
    }
    assert {key: said[key] for key in expected} == expected
    assert said["weights_bytes"] > 800_000
    assert said["load_seconds"] >= 0


def test_the_table_for_people() -> None:
    done = run(DEMO)
    assert done.exit_code == 0
    told = dict(row.split(None, 1) for row in done.stdout.splitlines())
    assert (told["model"], told["serves"], told["weights"]) == (DEMO, "yes", "1.7 MiB")
    assert "problem" not in told


def test_a_graph_alone_needs_to_be_told_the_rest(tmp_path: Path) -> None:
    root = make_tiny_llama(tmp_path / "whole", paged=False, cache="concat")
    bare = tmp_path / "alone.onnx"
    shutil.copy(root / "model.onnx", bare)
    code, said = report(bare)
    assert (code, said["serves"]) == (1, False)
    assert said["problem"] == "tokenizer.json is missing or cannot be read"
    code, said = report(bare, "--tokenizer", root / "tokenizer.json", "--max-context", "64")
    assert (code, said["context_tokens"]) == (0, 64)
    assert said["notes"] == [
        "no chat template: /v1/completions only; add chat_template.jinja or set chat_template"
    ]


@pytest.mark.slow
def test_models_of_vectors_and_scores(tmp_path: Path) -> None:
    for name in ("words", "pictures"):
        (tmp_path / name).mkdir()
    code, said = report(write_tiny(tmp_path / "words"))
    assert (code, said["kind"], said["pooling"], said["dimensions"]) == (0, "embedding", "mean", 16)
    code, said = report(write_classifier(tmp_path / "pictures"))
    assert (code, said["labels"], said["adapter"]) == (0, len(LABELS), "vectors")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", "config.json"])
def test_a_damaged_folder_is_exit_1_with_the_reason(tmp_path: Path, name: str) -> None:
    root = tmp_path / "secret-place"
    shutil.copytree(DEMO_FOLDER, root)
    (root / "SHA256SUMS").unlink()
    (root / name).write_bytes((root / name).read_bytes()[:-100])
    done = run(root)
    assert done.exit_code == 1
    assert "serves           no" in done.stdout
    assert "problem" in done.stdout
    assert "Traceback" not in done.output


def test_nothing_there_is_exit_2() -> None:
    done = run("/nowhere/at/all")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "/nowhere/at/all: there is nothing here\n"


def test_a_device_that_is_not_there_is_exit_1() -> None:
    """AIP-PROV-002: forced CUDA without such a GPU is an error with the reason."""
    code, said = report(DEMO, "--device", "cuda:63")
    assert code == 1
    assert said["problem"].startswith("cuda:63 was asked for: ")


def test_listing_the_configurations_models_still_works(tmp_path: Path) -> None:
    config = tmp_path / "aiproxy.yaml"
    config.write_text(
        "providers: {local: {type: local, models: [{name: demo, path: 'builtin:demo'}]}}"
    )
    done = CliRunner().invoke(aiproxy, ["models", "--config", str(config), "--json"])
    assert [found["model"] for found in json.loads(done.stdout)["models"]] == ["demo"]


#: Trains nothing: a linear layer over 4x4 images, exported, its weights and an answer told.
EXPORT = """
import json, sys, torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(48, 3)
    def forward(self, pixel_values):
        return {"logits": self.layer(pixel_values.flatten(1))}
torch.manual_seed(1)
net = Net()
batch = torch.export.Dim("batch", min=1, max=64)
shapes = {"pixel_values": {0: batch}}
program = torch.export.export(net, (torch.zeros(2, 3, 4, 4),), dynamic_shapes=shapes)
torch.export.save(program, sys.argv[1])
import numpy as np
from pathlib import Path
from aiproxy.reference_server.onnx.devices import Device
from aiproxy.reference_server.onnx.vectors.pytorch import open_program
images = np.random.RandomState(0).rand(5, 3, 4, 4).astype(np.float32)
session = open_program(Path(sys.argv[1]), Device())
given = session.run({"pixel_values": images}, ["logits"])["logits"]
wanted = net(torch.from_numpy(images))["logits"].detach().numpy()
from aiproxy.reference_server.onnx.checking import check
said = check(sys.argv[2], {"device": "cpu"})
print(json.dumps({"differs": float(abs(given - wanted).max()), "said": said}))
"""


@pytest.mark.slow
def test_a_program_of_torch_export(tmp_path: Path) -> None:
    """AIP-CFG-046, with a real PyTorch: AIPROXY_TORCH_PYTHON names an interpreter that has it."""
    python = os.environ.get("AIPROXY_TORCH_PYTHON")
    if not python:
        pytest.skip("AIPROXY_TORCH_PYTHON names no interpreter with PyTorch")
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 4, "width": 4}}')
    (tmp_path / "config.json").write_text('{"id2label": {"0": "a", "1": "b", "2": "c"}}')
    done = subprocess.run(
        [python, "-c", EXPORT, str(tmp_path / "net.pt2"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["differs"] < 1e-6
    assert told["said"]["problem"] is None
    assert (told["said"]["kind"], told["said"]["serves"]) == ("image-classification", True)
