"""Write tests/onnx/oracle.json: what transformers generates with the tests' small Llama.

    python -m venv /tmp/oracle-venv
    /tmp/oracle-venv/bin/pip install torch==2.13.0 transformers==5.23.0 onnx numpy jinja2
    /tmp/oracle-venv/bin/python scripts/local_oracle.py

torch and transformers are needed for this script only. The weights, the tokenizer and the chat
template are those of ``tests/support/tiny_models.py``; the file stores a hash of the weights, and
the tests refuse expectations of other weights. For each prompt it holds the token ids transformers
makes of it, the greedy continuation, and how many of its leading tokens are ``sure``: up to there the
best score led the second by more than ``NEAR``, so another order of additions cannot change them.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

REPOSITORY = Path(__file__).parent.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "support"))

import tiny_models

NEAR = 0.0005  # of scores that spread over several units; float32 sums differ in the fifth digit
NEW_TOKENS = 48

RAW = (
    "The engine takes a request and joins it with the others at the next step.",
    "Hello",
    "x",
    " ",
    "Où est la bibliothèque ? L'été dernier, déjà fermée à Noël.",
    "Grüße aus Köln: Straße, Übung, ähnlich, öffnen",
    "Příliš žluťoučký kůň úpěl ďábelské ódy",
    "机器学习模型在本地运行,不需要网络。",
    "こんにちは、世界。ローカルのモデルです。",
    "안녕하세요, 모델이 토큰을 만듭니다.",
    "Привет, как дела? Модель отвечает.",
    "مرحبا بالعالم",
    "🎉🚀 party 👩‍👩‍👧‍👦 family 🇫🇷 flag",
    '{"name": "get_weather", "arguments": {"city": "Zürich", "days": [1, 2, 3]}}',
    "def add(a, b):\n    return a + b\n\n\nprint(add(1, 2))\n",
    "| name | value |\n|---|---|\n| a | 1 |\n| b | 2 |\n",
    "0123456789 3.14159 -42 1e-9 0xFF",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z " * 2,
    "The same words again and again. " * 20,
    "Tokens are kept in blocks of sixteen, so lengths around them matter. " * 7,
    "line one\r\nline two\ttabbed\u00a0no-break\u200bzero width",
    "One turn<|eot_id|>and a mark inside, which is read",
)
CHATS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "user", "content": "Say héllo in 日本語 with an 🎈."}],
    [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Which model answers this?"},
    ],
    [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": "Three?"},
    ],
    [{"role": "user", "content": "Count the blocks. " * 25}],
    [
        {"role": "system", "content": "Answer as JSON, please."},
        {"role": "user", "content": '{"question": "how many?"}'},
        {"role": "assistant", "content": '{"answer": 3}'},
        {"role": "user", "content": "And twice as many?"},
    ],
    [{"role": "user", "content": "   spaces around   "}],
    [{"role": "user", "content": "Ceci n'est pas une pipe — voilà."}],
)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = tiny_models.make_tiny_llama(Path(made), paged=False, cache="concat")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.LlamaForCausalLM(config).eval()
    state = {name: torch.from_numpy(value) for name, value in tiny_models.weights().items()}
    model.load_state_dict(state, strict=True)
    rows = []
    for text in RAW:
        rows.append(continued(model, tokenizer, {"text": text}, tokenizer(text)["input_ids"]))
    for messages in CHATS:
        rendered = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        ids = tokenizer(rendered, add_special_tokens=False)["input_ids"]
        rows.append(continued(model, tokenizer, {"messages": messages, "rendered": rendered}, ids))
    written = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "weights_sha256": tiny_models.weights_digest(),
        "near": NEAR,
        "rows": rows,
    }
    text = json.dumps(written, ensure_ascii=False)
    # One row a line: a change of one prompt is one line of a diff.
    text = text.replace('"rows": [', '"rows": [\n').replace('}, {"prompt"', '},\n{"prompt"')
    (REPOSITORY / "tests" / "onnx" / "oracle.json").write_text(text + "\n", encoding="utf-8")
    ends = sum(row["finish"] == "stop" for row in rows)
    sure = sum(row["sure"] == len(row["tokens"]) for row in rows)
    print(f"{len(rows)} prompts, {ends} end by themselves, {sure} sure to the end")


def continued(model: Any, tokenizer: Any, asked: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    room = tiny_models.CONTEXT - len(ids)
    with torch.inference_mode():
        given = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=min(NEW_TOKENS, room),
            output_logits=True,
            return_dict_in_generate=True,
            eos_token_id=[tiny_models.END_OF_TEXT, tiny_models.END_OF_TURN],
            pad_token_id=tiny_models.PAD,
        )
    tokens = given.sequences[0, len(ids) :].tolist()
    margins = []
    for scores in given.logits:
        best, second = scores[0].topk(2).values.tolist()
        margins.append(best - second)
    ended = tokens[-1] in (tiny_models.END_OF_TEXT, tiny_models.END_OF_TURN)
    sure = next((place for place, led in enumerate(margins) if led <= NEAR), len(tokens))
    if ended:  # the token that ends an answer is no part of it
        tokens, sure = tokens[:-1], min(sure, len(tokens) - 1)
    return {
        "prompt": ids,
        **asked,
        "tokens": tokens,
        "sure": sure,
        "margin": round(min(margins), 5),
        "finish": "stop" if ended else "length",
        "said": tokenizer.decode(tokens, skip_special_tokens=True),
    }


if __name__ == "__main__":
    main()
