"""Build the demo model that ships with the reference server: data, training, ONNX file, card.

    python -m venv /tmp/demo-venv
    /tmp/demo-venv/bin/pip install torch==2.13.0 onnx onnxruntime==1.31.1 tokenizers==0.23.3 -e .
    /tmp/demo-venv/bin/python scripts/build_demo_model.py

torch and onnx are needed for this script only and are no dependency of the project. Facts come from
``aiproxy.spec`` (see ``demo_model/facts.py``) and ``demo_model/guide.py``; every random choice has a
fixed seed. The build takes about a quarter of an hour on two CPU cores. Weights are the same again on
the same machine with the same torch; elsewhere the last bits differ, so SHA256SUMS is written anew.
``--keep FILE`` stores the trained weights there, or takes them from there if the file exists.
"""

import argparse
import asyncio
import hashlib
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from demo_model.card import card
from demo_model.graph import write_graph
from demo_model.network import Decoder, Shape
from demo_model.questions import Corpus, Pair
from demo_model.tokens import (
    ASSISTANT,
    BOS,
    END,
    PAD,
    SPECIAL,
    USER,
    train_tokenizer,
    without_normalizer,
)
from demo_model.training import Example, Plan, endless, train
from tokenizers import Tokenizer

from aiproxy.reference_server.onnx.folders import DEMO_FOLDER
from aiproxy.reference_server.onnx.local_models import LocalModels
from aiproxy.spec import names, schema

VOCABULARY = 2560
BATCHES = 850
SAMPLE = 120  # held-out questions that ship with the model
MISTYPED = 700  # held-out questions that are asked once more with a slip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=DEMO_FOLDER)
    options.add_argument("--keep", type=Path)
    options.add_argument("--batches", type=int, default=BATCHES)
    options.add_argument("--threads", type=int, default=2)
    asked = options.parse_args()
    torch.set_num_threads(asked.threads)
    corpus = Corpus()
    tokenizer = build_tokenizer(corpus)
    model = trained(corpus, tokenizer, asked.keep, asked.batches)
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "SHA256SUMS").unlink(missing_ok=True)
    write_graph(model, asked.out / "model.onnx")
    tokenizer.save(str(asked.out / "tokenizer.json"), pretty=False)
    (asked.out / "config.json").write_text(
        json.dumps(description(model, tokenizer), indent=2) + "\n"
    )
    report(corpus, model, asked.out, asked.batches)


def build_tokenizer(corpus: Corpus) -> Tokenizer:
    source = random.Random(1)
    questions = [pair.question for _ in range(3) for pair in corpus.epoch(source)]
    return train_tokenizer(questions, corpus.answers(), VOCABULARY)


def trained(corpus: Corpus, tokenizer: Tokenizer, keep: Path | None, batches: int) -> Decoder:
    shape = Shape(VOCABULARY)
    if keep is not None and keep.exists():
        kept = torch.load(keep, weights_only=True)
        if kept["tokenizer"] != tokenizer.to_str():
            raise SystemExit(f"{keep} was trained on other facts; name another file to train anew")
        model = Decoder(shape)
        model.load_state_dict(kept["weights"])
        return model
    verbatim = without_normalizer(tokenizer)
    begin, user, answer, end = (tokenizer.token_to_id(mark) for mark in (BOS, USER, ASSISTANT, END))

    def example(pair: Pair) -> Example:
        asked = tokenizer.encode(pair.question, add_special_tokens=False).ids
        prompt = [begin, user, *asked, answer]
        return [*prompt, *verbatim.encode(pair.answer, add_special_tokens=False).ids, end], len(
            prompt
        )

    def epoch(source: random.Random) -> Sequence[Example]:
        return [example(pair) for pair in corpus.epoch(source)]

    stream: Iterator[Example] = endless(epoch, seed=7)
    model = train(shape, Plan(batches), stream, tokenizer.token_to_id(PAD), progress)
    if keep is not None:
        torch.save({"weights": model.state_dict(), "tokenizer": tokenizer.to_str()}, keep)
    return model


def description(model: Decoder, tokenizer: Tokenizer) -> dict[str, object]:
    """Return config.json: what the engine reads, then the sizes as Llama configurations name them."""
    shape = model.shape
    return {
        "name": "aiproxy-demo",
        "capabilities": ["text-generation"],
        "context_window": shape.context,
        "eos_token_id": tokenizer.token_to_id(END),
        "suppress_tokens": [tokenizer.token_to_id(mark) for mark in SPECIAL if mark != END],
        "chat": {
            "begin": BOS,
            "roles": {"user": USER},
            "close": None,
            "answer": ASSISTANT,
            "turns": 1,
        },
        "generation": {"temperature": 0.0},
        "model_type": "llama",
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head,
        "rope_theta": shape.rope_base,
        "rms_norm_eps": shape.eps,
        "max_position_embeddings": shape.context,
        "tie_word_embeddings": True,
    }


def report(corpus: Corpus, model: Decoder, out: Path, batches: int) -> None:
    """Measure on held-out wordings with the shipped engine; write heldout.json, the card, the sums."""
    engine = LocalModels.from_config({"models": [{"name": "demo", "path": str(out)}]})
    held = [*corpus.held, *corpus.held_foreign(random.Random(4))]
    right, wrong = measured(engine, held)
    some = random.Random(5).sample(held, min(len(held), MISTYPED))
    mistyped, _ = measured(engine, list(corpus.mistyped(some, random.Random(5))))
    for pair, said in wrong[:60]:
        progress(f"{pair.question!r} -> {said[:70]!r}, wanted {pair.answer[:70]!r}")
    sample = sorted(
        random.Random(6).sample(held, SAMPLE), key=lambda pair: (pair.family, pair.question)
    )
    sampled, _ = measured(engine, sample)
    rows = [{"family": p.family, "question": p.question, "answer": p.answer} for p in sample]
    whole = sum(hits for hits, _ in sampled.values()) / SAMPLE
    summary = {"accuracy": round(whole, 4), "questions": rows}
    (out / "heldout.json").write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    weights = sum(value.numel() for value in model.parameters())
    text = card(right, mistyped, weights, len(corpus.facts), spec_digest(), out, batches)
    (out / "MODEL_CARD.md").write_text(text)
    shipped = ("config.json", "heldout.json", "model.onnx", "tokenizer.json")
    sums = [
        f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in shipped
    ]
    (out / "SHA256SUMS").write_text("".join(sums))
    progress(text)


def measured(
    engine: LocalModels, pairs: Sequence[Pair]
) -> tuple[dict[str, tuple[int, int]], list[tuple[Pair, str]]]:
    """Return ``family -> (exactly right, asked)`` and the wrong answers."""
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    wrong = []
    for pair, said in zip(pairs, asyncio.run(answered(engine, pairs)), strict=True):
        counts[pair.family][0] += said == pair.answer
        counts[pair.family][1] += 1
        if said != pair.answer:
            wrong.append((pair, said))
    return {family: (hits, asked) for family, (hits, asked) in sorted(counts.items())}, wrong


async def answered(engine: LocalModels, pairs: Sequence[Pair]) -> list[str]:
    """Return what the model answers, asked one after the other."""
    said = []
    for pair in pairs:
        messages = [{"role": "user", "content": pair.question}]
        answer = await engine.chat({"model": "demo", "messages": messages, "max_tokens": 128})
        said.append(answer["choices"][0]["message"]["content"])
    return said


def spec_digest() -> str:
    """Return a hash over every schema the facts are read from."""
    read = [name for name in names() if name in ("config", "error") or name.startswith("headers/")]
    text = json.dumps({name: schema(name) for name in read}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
