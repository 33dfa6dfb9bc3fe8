"""Trains the task model that the middleware bundles, and says how good it is.

Generated prompts (``task_prompts.py``, training split) in, ``tasks/model.onnx`` and its
``model_card.md`` out: a softmax over hashed n-grams, trained here with plain numpy. The same seed
gives the same file. Needs the ``onnx`` package for writing the graph; nothing else does.

    python scripts/train_task_classifier.py [--out FOLDER] [--prompts N] [--passes N] [--seed N]
"""

import argparse
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "tests/tasks")]

from handwritten import LATER, PROMPTS
from task_prompts import SEED, prompts

from aiproxy.middleware.classify import classify
from aiproxy.middleware.tasks.features import CLASSES, FIRST, ROWS, features

HELD_OUT = 2000
#: The default of ``routing.task_classifier.min_confidence``.
CONFIDENT = 0.5
#: Share of the n-grams left out of each step, so that no single wording decides.
_DROPPED = 0.6
_RATE = 0.5
_SHRINK = 1e-4


def train(count: int, passes: int, seed: int) -> np.ndarray:
    """Return the weights, of shape (ROWS, classes)."""
    data = [
        (CLASSES.index(task), *features(text, {})) for task, text in prompts("train", count, seed)
    ]
    weights = np.zeros((ROWS, len(CLASSES)), np.float32)
    sums = np.full((ROWS, 1), 1e-2, np.float32)  # of squared gradients, by row (Adagrad)
    chance = np.random.default_rng(seed)
    for _ in range(passes):
        for index in chance.permutation(len(data)):
            label, rows, counts = data[index]
            kept = (chance.random(len(rows)) >= _DROPPED) | (rows < FIRST)
            rows, counts = rows[kept], counts[kept]
            scores = counts @ weights[rows]
            slope = np.exp(scores - scores.max())
            slope /= slope.sum()
            slope[label] -= 1.0
            step = counts[:, None] * slope[None, :] + _SHRINK * weights[rows]
            np.add.at(sums, rows, (step**2).mean(axis=1, keepdims=True))
            np.add.at(weights, rows, -_RATE * step / np.sqrt(sums[rows]))
    return weights


def graph(weights: np.ndarray) -> bytes:
    """Return the ONNX model: rows and their counts in, a share for each class out."""
    from onnx import TensorProto, checker, helper, numpy_helper

    node, table = helper.make_node, numpy_helper.from_array
    made = helper.make_graph(
        [
            node("Gather", ["weights", "rows"], ["picked"], axis=0),
            node("MatMul", ["counts", "picked"], ["scores"]),
            node("Softmax", ["scores"], ["shares"], axis=-1),
        ],
        "tasks",
        [
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("counts", TensorProto.FLOAT, [1, "n"]),
        ],
        [helper.make_tensor_value_info("shares", TensorProto.FLOAT, [1, len(CLASSES)])],
        [table(weights, "weights")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    model.producer_name = "aiproxy"
    checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def guess(weights: np.ndarray, text: str) -> str:
    rows, counts = features(text, {})
    shares = np.exp(counts @ weights[rows])
    shares /= shares.sum()
    best = int(shares.argmax())
    return CLASSES[best] if shares[best] >= CONFIDENT else "general"


def accuracy(rows: list[tuple[str, str]], tell: Any) -> dict[str, float]:
    """Share told right, by class and of all."""
    right: dict[str, list[bool]] = {}
    for task, text in rows:
        right.setdefault(task, []).append(tell(text) == task)
    found = {name: sum(hits) / len(hits) for name, hits in right.items()}
    found["all"] = sum(map(sum, right.values())) / len(rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "middleware/aiproxy/middleware/tasks")
    parser.add_argument("--prompts", type=int, default=6000)
    parser.add_argument("--passes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    weights = train(asked.prompts, asked.passes, asked.seed)
    by_hand = [(task, text) for task, rows in PROMPTS.items() for text in rows]
    later = [(task, text) for task, rows in LATER.items() for text in rows]
    sets = {
        f"{HELD_OUT} generated, held-out wordings": list(prompts("held-out", HELD_OUT)),
        f"{len(by_hand)} written by hand": by_hand,
        f"{len(later)} written by hand, later": later,
    }
    tellers = {
        "words": lambda text: classify({"input": text}),
        "model": lambda text: guess(weights, text),
    }
    lines = []
    for what, rows in sets.items():
        for name, tell in tellers.items():
            found = accuracy(rows, tell)
            shares = " | ".join(f"{found[task]:.3f}" for task in (*CLASSES, "all"))
            lines.append(f"| {what} | {name} | {shares} |")
    print("\n".join(lines))
    data = graph(weights)
    digest = sha256(data).hexdigest()
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "model.onnx").write_bytes(data)
    (asked.out / "model_card.md").write_text(card(lines, asked, len(data), digest))


def card(lines: list[str], asked: argparse.Namespace, size: int, digest: str) -> str:
    head = " | ".join((*CLASSES, "all"))
    table = "\n".join(lines)
    return f"""# Task model

Tells which task a prompt is about: {", ".join(CLASSES)}. Used where
`routing.task_classifier.type` is `model`; runs in the process, and nothing leaves it.

- **Kind**: softmax regression over hashed n-grams (3 to 5 characters, 1 and 2 words), the shapes
  and the hits in the published word table; {ROWS:,} rows of {len(CLASSES)} float32.
- **File**: `model.onnx`, {size:,} bytes, SHA-256 `{digest}`.
- **Trained on**: {asked.prompts:,} prompts made by `scripts/task_prompts.py` (training split, seed
  {asked.seed}), {asked.passes} passes, by `scripts/train_task_classifier.py`. No text of anybody
  was used; the same seed and numpy make the same file.
- **Language**: English. In other languages it mostly sees shapes and names of technologies; below
  `min_confidence` the task is `general`.
- **Not for**: judging what is sensitive, safe or true. It only breaks ties and picks a column of a
  quality map.

Share of prompts told right, for the published word table (`words`) and for this model with the
default `min_confidence` of {CONFIDENT}:

| set | classifier | {head} |
|---|---|{"---|" * (len(CLASSES) + 1)}
{table}

The held-out part of the generated prompts shares no template and no slot filling with the training
part. The prompts written by hand (`tests/tasks/handwritten.py`) were only ever measured on. Who
wrote the word table had read all but the last ones, which flatters both classifiers there; the
last were written when table and model were final. Expect of real traffic what the last rows say.
"""


if __name__ == "__main__":
    main()
