"""A server proves its level with local models alone, and beside providers that it reaches."""

import contextlib
import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml
from beside_local import CHAT, PICTURES, WORDS, house
from ports import free_base
from tiny_images import draw, encoded

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).with_name("aiproxy"))
STARTS_WITHIN_S, ENDS_WITHIN_S = 60, 15
LEVELS_TAKE_S = 600


def conformance(*args: str, folder: Path) -> dict[str, Any]:
    """Return the report of a run that proved its level."""
    words = [COMMAND, "conformance", *args, "--report-dir", str(folder)]
    ran = subprocess.run(
        words, capture_output=True, text=True, timeout=LEVELS_TAKE_S + 60, check=False
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


@contextlib.contextmanager
def served(config: Path) -> Iterator[str]:
    """Serve a configuration until the block ends."""
    url = f"http://127.0.0.1:{(port := free_base())}"
    with (config.parent / "served.log").open("w+") as log:
        process = subprocess.Popen(
            [COMMAND, "serve", "--config", str(config), "--port", str(port)],
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            until = time.monotonic() + STARTS_WITHIN_S
            while process.poll() is None and time.monotonic() < until:
                with contextlib.suppress(OSError):
                    urlopen(f"{url}/readyz", timeout=2).close()
                    break
                time.sleep(0.1)
            yield url
        finally:
            process.terminate()
            process.wait(ENDS_WITHIN_S)


def posted(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


@pytest.mark.slow
def test_local_models_alone_prove_level_1(tmp_path: Path):
    config = tmp_path / "aiproxy.yaml"
    config.write_text(yaml.safe_dump({"providers": {"local": house(tmp_path / "models")}}))
    with served(config) as url:
        report = conformance(url, "--level", "1", folder=tmp_path / "report")
        turns = [{"role": "user", "content": "Say ok."}]
        chat = posted(
            f"{url}/v1/chat/completions", {"model": CHAT, "messages": turns, "max_tokens": 8}
        )
        vectors = posted(f"{url}/v1/embeddings", {"model": WORDS, "input": ["hello", "there"]})
        image = f"data:image/png;base64,{b64encode(encoded(draw('red', 'cross', 1))).decode()}"
        seen = posted(f"{url}/aiproxy/predict", {"model": PICTURES, "input": {"image": image}})
    assert (report["mode"], report["level"]) == ("observe", 1)
    assert chat["x-aiproxy"]["provider"] == "local"
    assert chat["choices"][0]["message"]["content"]
    assert len(vectors["data"]) == 2
    assert vectors["x-aiproxy"]["provider"] == "local"
    assert seen["output"][0]["label"] == "red cross"
    assert seen["metadata"]["provider"] == "local"


@pytest.mark.parametrize(
    "level",
    [pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.exhaustive)],
)
def test_local_models_beside_others_prove_their_level(
    level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The image model of the house is the one that the suite finds and asks."""
    house(tmp_path / "models")
    monkeypatch.setenv("HOUSE_MODELS", str(tmp_path / "models"))
    launch = f"{sys.executable} {HERE / 'beside_local.py'} {{config}} {{port}}"
    report = conformance("--launch", launch, "--level", str(level), folder=tmp_path / "report")
    assert (report["mode"], report["level"]) == ("controlled", level)
    inputs = next(one for one in report["results"] if one["check"] == "AIP-API-017")
    assert inputs["status"] == "pass", inputs["reason"]
    assert "the same image again" in {finding["what"] for finding in inputs["findings"]}
