"""The model card, filled with what was measured."""

import hashlib
from pathlib import Path

FAMILIES = {
    "headers": "X-AI headers",
    "values": "header values",
    "config": "configuration keys",
    "errors": "error codes and statuses",
    "providers": "provider set-up",
    "levels": "levels",
    "guide": "commands, mounting, concepts",
    "chat": "greetings and the like",
    "elsewhere": "anything else (must be declined)",
}
Counts = dict[str, tuple[int, int]]


def card(
    right: Counts,
    mistyped: Counts,
    weights: int,
    facts: int,
    digest: str,
    folder: Path,
    batches: int,
) -> str:
    """Return MODEL_CARD.md; ``right`` and ``mistyped`` map a family to (exactly right, asked)."""
    graph = (folder / "model.onnx").read_bytes()
    rows = "\n".join(
        f"| {FAMILIES[family]} | {asked} | {hits / asked:.1%} | {mistyped[family][0] / mistyped[family][1]:.1%} |"
        for family, (hits, asked) in right.items()
    )
    total, hits = (
        sum(asked for _, asked in right.values()),
        sum(found for found, _ in right.values()),
    )
    typed = sum(found for found, _ in mistyped.values())
    typed_total = sum(asked for _, asked in mistyped.values())
    return f"""# aiproxy-demo

A very small language model that answers questions about AIProxy, so that a fresh installation has
something to talk to without a key, a network or a GPU. It was made and trained for this purpose from
nothing: no weights, no tokenizer and no text of another model are in it.

- Kind: Llama-shaped decoder (RMSNorm, rotary positions, grouped-query attention, SwiGLU), {weights:,}
  weights, stored as int8 and computed in float32. Context 512 tokens.
- Licence: Apache-2.0.
- File: model.onnx, {len(graph):,} bytes, SHA-256 `{hashlib.sha256(graph).hexdigest()}`.
- Runs on: onnxruntime, CPU, one thread.

## Training data

{facts} facts, each with one answer and many ways to ask: header, configuration and error facts are
read from `spec/` (schema digest `{digest}`), provider facts from its catalogue; commands, mounting,
levels and greetings are written in `scripts/demo_model/`. Questions come from templates with openers,
endings and simulated typing slips. {batches} batches of at most 2,560 tokens.

## Accuracy

Greedy answers to wordings that were never in the training data. An answer counts only when it equals
the expected one character for character. The facts themselves were trained on: this measures whether
a new wording finds the fact, nothing more. The last column is a sample of
them with a typing slip in each.

| questions about | asked | right | right with a slip |
|---|---|---|---|
{rows}
| all | {total} | {hits / total:.1%} | {typed / typed_total:.1%} |

`heldout.json` holds a sample of these questions and the accuracy on that sample; a test asks them.

## Limits

- It knows the facts it was trained on and nothing else. It cannot reason, translate, summarise,
  write code, call tools or follow instructions, and it does not use earlier turns or system messages:
  only the last user message is read.
- A question close to a fact but not about it may get that fact's answer; a question about something
  else is usually, not always, declined. Where a header and a configuration key have the same words
  ("routing strategy"), it answers with the configuration key. Check an answer against the documentation.
- Letter case and punctuation of questions are ignored. English only.
- It describes the specification it was built from; after a change there it is out of date until it is
  rebuilt.
- Sampling at a temperature above 0 makes wrong names and values likelier; the default is 0.

## Rebuild

    python scripts/build_demo_model.py

The script says what it needs. The same machine and torch version give the same file; another machine
gives slightly different weights, hence another hash and figures that differ a little.
"""
