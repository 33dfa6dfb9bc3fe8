"""Tokenizers made of nothing: every byte a token, a few merges, and the markers a test asks for."""

import json
from collections.abc import Iterable
from typing import Any

SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
#: The signs byte-level vocabularies write for bytes: printable ones as they are, others from U+0100.
SIGNS = [
    *map(chr, SHOWN),
    *(chr(256 + at) for at in range(256 - len(SHOWN))),
]
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ t", "u s", "us e", "use r", "t o", "to o", "too l")


def byte_level(special: Iterable[str], added: Iterable[str] = ()) -> str:
    """Return tokenizer.json of a byte-level BPE; ``special`` and ``added`` tokens come last, of which
    only the first are special. The first special token begins a text."""
    vocabulary = {sign: at for at, sign in enumerate(SIGNS)}
    for merge in MERGES:
        vocabulary[merge.replace(" ", "")] = len(vocabulary)
    tokens: list[dict[str, Any]] = []
    for special_ones, texts in ((True, list(special)), (False, list(added))):
        for text in texts:
            row = {"id": len(vocabulary) + len(tokens), "content": text, "special": special_ones}
            flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
            tokens.append(row | flags)
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    begin = tokens[0]
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": tokens,
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", **level},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [
                    {"SpecialToken": {"id": begin["content"], "type_id": 0}},
                    {"Sequence": {"id": "A", "type_id": 0}},
                ],
                "pair": [
                    {"Sequence": {"id": "A", "type_id": 0}},
                    {"Sequence": {"id": "B", "type_id": 1}},
                ],
                "special_tokens": {
                    begin["content"]: {
                        "id": begin["content"],
                        "ids": [begin["id"]],
                        "tokens": [begin["content"]],
                    }
                },
            },
            "decoder": {"type": "ByteLevel", **level},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": [merge.split(" ") for merge in MERGES],
            },
        }
    )


def sentence_pieces(special: Iterable[str]) -> str:
    """Return tokenizer.json of a BPE with bytes to fall back on, spaces written as a sign, and one
    before the text's first word, as SentencePiece models have it."""
    space = "\u2581"
    tokens = [
        {
            "id": at,
            "content": text,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for at, text in enumerate(["<unk>", *special])
    ]
    pieces = [row["content"] for row in tokens] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += [space, *"abcdefghijklmnopqrstuvwxyz<|>/"]
    merges = [(space, "h"), (space + "h", "i"), ("h", "i")]
    pieces += ["".join(merge) for merge in merges]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    metaspace = {
        "type": "Metaspace",
        "replacement": space,
        "prepend_scheme": "first",
        "split": False,
    }
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": tokens,
            "normalizer": None,
            "pre_tokenizer": metaspace,
            "post_processor": None,
            "decoder": {
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": space}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            },
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": "<unk>",
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": True,
                "byte_fallback": True,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": [list(merge) for merge in merges],
            },
        }
    )
