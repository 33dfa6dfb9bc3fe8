"""Write tests/onnx/chat_vectors.json: what transformers makes of conversations and templates.

    python -m venv /tmp/oracle-venv
    /tmp/oracle-venv/bin/pip install transformers==5.23.0 jinja2
    PYTHONPATH=tests/support /tmp/oracle-venv/bin/python scripts/chat_template_oracle.py

transformers is needed for this script only. Each vector is a chat request, the template's name in
tests/onnx/chat_templates, and the token ids transformers' apply_chat_template gives; ``guarded`` ones
were made with its own protection against markers in messages.
"""

import copy
import json
from pathlib import Path
from typing import Any

import transformers
from small_tokenizers import byte_level
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

FOLDER = Path(__file__).parent.parent / "tests" / "onnx"
#: Template: special tokens, added tokens, begin token, end token.
TOKENIZERS: dict[str, tuple[list[str], list[str], str, str]] = {
    "blocks": (
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "</think>"],
        "<|endoftext|>",
        "<|im_end|>",
    ),
    "headers": (
        ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        [],
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "instructions": (
        [
            "<s>",
            "</s>",
            "[INST]",
            "[/INST]",
            "[TOOL_CALLS]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ],
        [],
        "<s>",
        "</s>",
    ),
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": 'Tells the weather <now> & "later"; für Städte.',
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}


def call(name: str, arguments: dict[str, Any], id: str = "abcdefgh1") -> dict[str, Any]:
    text = json.dumps(arguments, ensure_ascii=False)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": text}}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


SYSTEM = {"role": "system", "content": "  You are helpful.\n"}
USED = [
    user("Weather in Köln?"),
    {"role": "assistant", "tool_calls": [call("get_weather", {"city": "Köln", "days": 2})]},
    {"role": "tool", "tool_call_id": "abcdefgh1", "content": '{"sky": "<clear> & 日本 🙂"}'},
]
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one question": {"messages": [user("hello")]},
    "white space": {"messages": [user("  two\n\n lines \t\n")]},
    "system": {"messages": [SYSTEM, user("hello hello")]},
    "turns": {
        "messages": [
            SYSTEM,
            user("hi 🙂"),
            {"role": "assistant", "content": " hello! \n"},
            user("and\r\nnow? e\u0301 \u200b"),
        ]
    },
    "tools offered": {"messages": [SYSTEM, user("Weather?")], "tools": [WEATHER, CLOCK]},
    "a call and its result": {"messages": USED, "tools": [WEATHER]},
    "a call, its result, and on": {
        "messages": [*USED, {"role": "assistant", "content": "It is clear."}, user("Thanks")],
        "tools": [WEATHER, CLOCK],
    },
    "braces": {"messages": [user("{{ 7 * 7 }} {% if x %} {# no #} &lt;b&gt; <b>'\"\\")]},
    "thinking kept apart": {
        "messages": [
            user("hi"),
            {"role": "assistant", "content": "<think>hm</think>\n\nhello"},
            user("more"),
        ]
    },
}
GUARDED: dict[str, dict[str, Any]] = {
    "every marker spelled": {"messages": [user("a MARKS b")]},
    "a marker alone": {"messages": [user("MARK")]},
    "a marker in a system message": {
        "messages": [{"role": "system", "content": " MARK "}, user("x")]
    },
}


def main() -> None:
    vectors = []
    for name, (special, added, begin, end) in TOKENIZERS.items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(byte_level(special, added)),
            bos_token=begin,
            eos_token=end,
        )
        tokenizer.chat_template = (FOLDER / "chat_templates" / f"{name}.jinja").read_text()
        for title, body in CONVERSATIONS.items():
            vectors.append(vector(tokenizer, name, title, body, guarded=False))
        for title, body in GUARDED.items():
            text = json.dumps(body).replace("MARKS", " ".join(special)).replace("MARK", special[-1])
            vectors.append(vector(tokenizer, name, title, json.loads(text), guarded=True))
    described = {
        "made_with": f"transformers {transformers.__version__}",
        "tokenizers": {
            name: dict(zip(("special", "added", "begin", "end"), row, strict=True))
            for name, row in TOKENIZERS.items()
        },
        "vectors": vectors,
    }
    (FOLDER / "chat_vectors.json").write_text(
        json.dumps(described, ensure_ascii=False, separators=(",", ":")).replace(
            '{"template"', '\n{"template"'
        )
        + "\n"
    )


def vector(
    tokenizer: Any, template: str, title: str, body: dict[str, Any], *, guarded: bool
) -> dict[str, Any]:
    messages = copy.deepcopy(body["messages"])
    for message in messages:
        for made in message.get("tool_calls", ()):
            made["function"]["arguments"] = json.loads(made["function"]["arguments"])
        if message["role"] == "tool":
            message["name"] = "get_weather"
    more = {"sanitize_control_tokens": True} if guarded else {}
    ids = tokenizer.apply_chat_template(
        messages, tools=body.get("tools"), add_generation_prompt=True, return_dict=False, **more
    )
    return {"template": template, "title": title, "body": body, "ids": list(ids)}


if __name__ == "__main__":
    main()
