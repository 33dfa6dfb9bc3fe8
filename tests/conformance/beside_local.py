"""Serves a rendered configuration with one provider more: local models, run in this very process.

    python beside_local.py CONFIG PORT

What ``aiproxy conformance --launch`` starts to show that a server with local models of its own keeps
every promise that the suite looks at. They are listed and considered, and change no scenario's own
choice: the text model is dear, poor and too small for any prompt of the suite; nobody asks for
embeddings of no model by name. The folder ``HOUSE_MODELS`` is used again where it is set.
"""

import os
import sys
from pathlib import Path
from typing import Any, Final

import yaml

CHAT, WORDS, PICTURES = "house-chat", "house-words", "house-pictures"
_DEMO: Final = {"name": CHAT, "path": "builtin:demo"}
_UNEQUAL: Final = {
    "cost_per_1k_tokens": 90.0, "quality": 0.01, "latency_prior": "1h", "context_window": 8,
}  # fmt: skip
_LAST: Final = 999


def house(folder: Path, **text: Any) -> dict[str, Any]:
    """Return a provider of a text, an embedding and an image model; ``text`` is laid over the first.

    What is not in ``folder`` yet is made there.
    """
    from bert_graph import write_tiny
    from tiny_images import write_classifier

    models = [{**_DEMO, **text}]
    for name, capability, write in (
        (WORDS, "embeddings", write_tiny),
        (PICTURES, "image-classification", write_classifier),
    ):
        place = folder / name
        if not place.is_dir():
            place.mkdir(parents=True)
            write(place)
        models.append({"name": name, "path": str(place), "capabilities": [capability]})
    return {"type": "local", "models": models}


def main(config: str, port: str) -> None:
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    rendered = yaml.safe_load(Path(config).read_text())
    folder = Path(os.environ.get("HOUSE_MODELS") or Path(config).parent / "house")
    rendered["providers"]["house"] = {**house(folder, **_UNEQUAL), "priority": _LAST}
    beside = Path(config).with_suffix(".local.yaml")
    beside.write_text(yaml.safe_dump(rendered, sort_keys=False))
    command = Path(sys.executable).with_name("aiproxy")
    os.execv(command, [str(command), "serve", "--config", str(beside), "--port", port])


if __name__ == "__main__":
    main(*sys.argv[1:])
