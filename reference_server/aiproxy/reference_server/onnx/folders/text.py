"""The facts of a text model, from the files that onnxruntime-genai, transformers or we write."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import ModelUnavailable
from aiproxy.reference_server.onnx.folders import TextFolder
from aiproxy.reference_server.onnx.folders.files import (
    TokenizerFacts,
    find_tokenizer,
    fingerprint,
    int_or_none,
    ints,
    read_json,
    read_json_if_any,
    read_text,
)
from aiproxy.reference_server.onnx.folders.graphs import Graph, Value, read_graph
from aiproxy.reference_server.onnx.text.generation import Sampling

GENAI: Final = "genai_config.json"
#: Names the inputs of a cache begin with, in files of genai, optimum and older exporters.
CACHES: Final = ("past_key_values", "past_key.", "past_value.", "past.", "key_cache", "value_cache")
_SPECIAL: Final = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the configuration says beside ``path``: other places of the tokenizer and the chat
    template (a file or the template itself), and a smaller context, in tokens."""

    tokenizer: str | None = None
    chat_template: str | None = None
    context: int | None = None


def is_decoder(graph: Graph) -> bool:
    """Whether a graph continues a text and keeps what it computed of it."""
    return (
        "input_ids" in graph.inputs
        and "logits" in graph.outputs
        and any(name.startswith(CACHES) for name in graph.inputs)
    )


def genai_graph(root: Path) -> Path:
    """Return the decoder's file that a genai_config.json names."""
    decoder = _object(_object(read_json(root / GENAI), "model", GENAI), "decoder", GENAI)
    return root / str(decoder.get("filename", "model.onnx"))


def read_genai(root: Path, asked: Asked) -> TextFolder:
    """Return the model of a folder with a genai_config.json.

    Raises:
        ModelUnavailable: it is damaged, or no decoder.
    """
    config = read_json(root / GENAI)
    model = _object(config, "model", GENAI)
    decoder = _object(model, "decoder", GENAI)
    path = genai_graph(root)
    graph = read_graph(path)
    tokenizer = find_tokenizer(root, asked.tokenizer)
    facts = TokenizerFacts(tokenizer)
    search = config.get("search") or {}
    context = int_or_none(model.get("context_length"))
    most = int_or_none(search.get("max_length"))
    if context is None:
        context = most
    # Both keys exist because genai allots the cache for max_length, whatever the model could do.
    if context is not None and most is not None:
        context = min(context, most)
    vocabulary = _vocabulary(graph, int_or_none(model.get("vocab_size")), facts)
    settings = read_json_if_any(root / "tokenizer_config.json")
    begin = int_or_none(model.get("bos_token_id"))
    return TextFolder(
        kind="genai",
        root=root,
        graph=path,
        tokenizer=tokenizer,
        context=_context(context, asked, "context_length in genai_config.json"),
        ends=_ends(ints(model.get("eos_token_id")), facts),
        fingerprint=fingerprint([path]),
        name=root.name,
        begin=begin if _begins(settings, facts, begin) else None,
        pad=next(iter(ints(model.get("pad_token_id"))), None),
        vocabulary=vocabulary,
        template=_template(root, settings, asked),
        special=_special(root, settings),
        sampling=_sampling(search),
        heads=int_or_none(decoder.get("num_key_value_heads")),
        head_size=int_or_none(decoder.get("head_size")),
        layers=int_or_none(decoder.get("num_hidden_layers")),
        paged="block_table" in graph.inputs or "PagedAttention" in graph.operators,
        cuda_only="PagedAttention" in graph.operators,
        bytes=graph.bytes,
    )


def read_decoder(root: Path, path: Path, graph: Graph, asked: Asked) -> TextFolder:
    """Return the decoder ``graph`` at ``path`` with what the files in ``root`` say of it.

    Raises:
        ModelUnavailable: something it needs is missing or damaged.
    """
    config = read_json_if_any(root / "config.json")
    generation = read_json_if_any(root / "generation_config.json")
    settings = read_json_if_any(root / "tokenizer_config.json")
    tokenizer = find_tokenizer(root, asked.tokenizer)
    facts = TokenizerFacts(tokenizer)
    special = _special(root, settings)
    ends = ints(generation.get("eos_token_id")) or ints(config.get("eos_token_id"))
    named = facts.id(special.get("eos_token"))
    window = config.get("context_window") or config.get("max_position_embeddings")
    begin = int_or_none(config.get("bos_token_id"))
    heads, head_size, layers = _cache_sizes(graph, config)
    chat = config.get("chat")
    return TextFolder(
        kind="decoder",
        root=root,
        graph=path,
        tokenizer=tokenizer,
        context=_context(int_or_none(window), asked, "max_position_embeddings in config.json"),
        ends=_ends(ends or (() if named is None else (named,)), facts),
        fingerprint=fingerprint([path]),
        name=str(config.get("name") or root.name),
        begin=begin if _begins(settings, facts, begin) else None,
        pad=int_or_none(config.get("pad_token_id")),
        suppress=ints(config.get("suppress_tokens")) or ints(generation.get("suppress_tokens")),
        vocabulary=_vocabulary(graph, int_or_none(config.get("vocab_size")), facts),
        chat=chat if isinstance(chat, dict) and not asked.chat_template else None,
        template=_template(root, settings, asked),
        special=special,
        sampling=_own_sampling(config["generation"])
        if "generation" in config
        else _sampling(generation),
        heads=heads,
        head_size=head_size,
        layers=layers,
        bytes=graph.bytes,
    )


def _context(said: int | None, asked: Asked, where: str) -> int:
    sizes = [size for size in (said, asked.context) if size]
    if not sizes:
        raise ModelUnavailable(f"nothing says how long its context is; set max_context, or {where}")
    return min(sizes)


def _ends(said: tuple[int, ...], facts: TokenizerFacts) -> tuple[int, ...]:
    ends = said or facts.usual_ends()
    if not ends:
        raise ModelUnavailable(
            "nothing says which token ends an answer; set eos_token_id in config.json"
        )
    return ends


def _vocabulary(graph: Graph, said: int | None, facts: TokenizerFacts) -> int | None:
    """Return the number of scores the graph gives; the tokenizer must not have more tokens."""
    shape = graph.outputs["logits"].shape if "logits" in graph.outputs else None
    last = shape[-1] if shape else None
    size = last if isinstance(last, int) else said
    if size is not None and facts.size > size:
        raise ModelUnavailable(
            f"the tokenizer has {facts.size} tokens and the graph scores for {size}; "
            "they are not of the same model"
        )
    return size


def _cache_sizes(
    graph: Graph, config: Mapping[str, Any]
) -> tuple[int | None, int | None, int | None]:
    caches = [value for name, value in graph.inputs.items() if name.startswith(CACHES)]
    heads, width = _size(caches[0], 1), _size(caches[0], 3)
    wide, many = int_or_none(config.get("hidden_size")), config.get("num_attention_heads")
    if width is None:
        width = int_or_none(config.get("head_dim"))
    if width is None and wide and isinstance(many, int) and many:
        width = wide // many
    if heads is None:
        heads = int_or_none(config.get("num_key_value_heads")) or int_or_none(many)
    return heads, width, len(caches) // 2


def _size(value: Value, at: int) -> int | None:
    size = value.shape[at] if value.shape is not None and len(value.shape) == 4 else None
    return size if isinstance(size, int) else None


def _special(root: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts of the special tokens a Jinja template may name."""
    known = {**read_json_if_any(root / "special_tokens_map.json"), **settings}
    texts = {name: known.get(name) for name in _SPECIAL}
    plain = {
        name: text.get("content") if isinstance(text, dict) else text
        for name, text in texts.items()
    }
    return {name: text for name, text in plain.items() if isinstance(text, str)}


def _begins(settings: Mapping[str, Any], facts: TokenizerFacts, begin: int | None) -> bool:
    said = settings.get("add_bos_token")
    return said if isinstance(said, bool) else facts.writes_first(begin)


def _template(root: Path, settings: Mapping[str, Any], asked: Asked) -> str | None:
    """Return the Jinja text: of the configuration, of chat_template.jinja, of older places."""
    if asked.chat_template:
        if "{" in asked.chat_template or "\n" in asked.chat_template:
            return asked.chat_template
        path = Path(asked.chat_template)
        if path.suffix == ".json":
            return _one_template(read_json(path).get("chat_template"))
        return read_text(path)
    if (root / "chat_template.jinja").is_file():
        return read_text(root / "chat_template.jinja")
    older = read_json_if_any(root / "chat_template.json").get("chat_template")
    return _one_template(older or settings.get("chat_template"))


def _one_template(found: object) -> str | None:
    """Of several named templates the one for tools, which serves both, or the default."""
    if isinstance(found, list):
        named = {row.get("name"): row.get("template") for row in found if isinstance(row, dict)}
        found = named.get("tool_use") or named.get("default")
    return found if isinstance(found, str) else None


def _sampling(said: Mapping[str, Any]) -> Sampling:
    """Return what a generation_config.json or genai's ``search`` chooses when nobody else does."""
    if not said.get("do_sample"):
        return Sampling()
    return Sampling(
        temperature=_between(said.get("temperature"), 0.0, 2.0, 1.0),
        top_p=_between(said.get("top_p"), 0.0, 1.0, 1.0),
        top_k=max(0, int_or_none(said.get("top_k")) or 0),
    )


def _between(value: object, low: float, high: float, usual: float) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and low <= value <= high else usual  # type: ignore[arg-type,operator]


def _own_sampling(said: Any) -> Sampling:
    try:
        return Sampling(**said)
    except TypeError as wrong:
        raise ModelUnavailable("config.json: generation has unknown settings") from wrong


def _object(config: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    found = config.get(key)
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{name} does not describe a decoder: {key} is missing")
    return found
