"""Reading the files of a model folder: JSON, recorded hashes, tokenizers; never a pickle."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import ModelUnavailable

#: Names of pickled weights: loading one runs whatever program it holds.
PICKLES: Final = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
_ADVICE: Final = "pickled files run programs when they are loaded; export the model to ONNX"
#: How much of a large file its fingerprint reads at each end.
_END: Final = 1024 * 1024
_WHOLE: Final = 64 * _END
#: How special tokens that end an answer are usually named, where no file says it.
USUAL_ENDS: Final = (
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in the JSON file at ``path``.

    Raises:
        ModelUnavailable: it is missing, no JSON, or no object.
    """
    content = read_bytes(path)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as wrong:
        raise ModelUnavailable(f"{path.name} is not JSON") from wrong
    if not isinstance(found, dict):
        raise ModelUnavailable(f"{path.name} is not an object")
    return found


def read_json_if_any(path: Path) -> dict[str, Any]:
    """As ``read_json``, but empty when there is no such file."""
    return read_json(path) if path.is_file() else {}


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as missing:
        raise ModelUnavailable(f"{path.name} is missing or cannot be read") from missing


def read_text(path: Path) -> str:
    try:
        return read_bytes(path).decode("utf-8")
    except ValueError as wrong:
        raise ModelUnavailable(f"{path.name} is not UTF-8 text") from wrong


def refuse_pickle(path: Path) -> None:
    """Refuse a file that is pickled by its name or by its content.

    Raises:
        ModelUnavailable: it is.
    """
    if path.suffix.lower() in PICKLES:
        raise ModelUnavailable(f"{path.name}: {_ADVICE}")
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError:
        return  # whoever reads it says what is wrong
    # Protocols 2 to 5. A ZIP archive may hold one too: torch.export's are looked into when opened.
    if start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ModelUnavailable(f"{path.name} is a pickle: {_ADVICE}")


def verify_sums(folder: Path) -> None:
    """Compare the folder's files with its SHA256SUMS, if there is one.

    Raises:
        ModelUnavailable: a listed file is missing or differs.
    """
    listed = folder / "SHA256SUMS"
    if not listed.is_file():
        return
    for line in read_bytes(listed).decode("utf-8", "replace").splitlines():
        wanted, _, name = line.partition("  ")
        if not name:
            continue
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelUnavailable("SHA256SUMS names a file outside its folder")
        if _digest(path) != wanted.lower():
            raise ModelUnavailable(f"{path.name} differs from its recorded hash; install it again")


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as missing:
        raise ModelUnavailable(f"{path.name} is missing or cannot be read") from missing


def fingerprint(paths: Sequence[Path]) -> str:
    """Return what tells these weights from others; of a large file only its ends are read."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                digest.update(file.read(size if size <= _WHOLE else _END))
                if size > _WHOLE:
                    file.seek(-_END, 2)
                    digest.update(file.read())
                    digest.update(str(size).encode())
        except OSError as missing:
            raise ModelUnavailable(f"{path.name} is missing or cannot be read") from missing
    return "fp_" + digest.hexdigest()[:12]


def find_tokenizer(root: Path, given: str | Path | None) -> Path:
    """Return the tokenizer.json of a model.

    Raises:
        ModelUnavailable: there is none.
    """
    path = Path(given) if given else root / "tokenizer.json"
    if path.is_dir():
        path /= "tokenizer.json"
    if not path.is_file():
        others = [name for name in ("tokenizer.model", "vocab.txt") if (root / name).is_file()]
        hint = f"; {others[0]} alone is not read, convert it to tokenizer.json" if others else ""
        raise ModelUnavailable(f"{path.name} is missing or cannot be read{hint}")
    return path


class TokenizerFacts:
    """What a tokenizer.json says of its tokens, read as JSON."""

    def __init__(self, path: Path) -> None:
        content = read_json(path)
        model = content.get("model")
        if not isinstance(model, dict):
            raise ModelUnavailable(f"{path.name} is damaged")
        self._ids = dict(_tokens(content, model.get("vocab"), path.name))
        if not self._ids:
            raise ModelUnavailable(f"{path.name} is damaged")
        self._after = content.get("post_processor")
        self.size = max(self._ids.values()) + 1

    def id(self, token: object) -> int | None:
        return self._ids.get(token) if isinstance(token, str) else None

    def usual_ends(self) -> tuple[int, ...]:
        found = (self._ids.get(name) for name in USUAL_ENDS)
        return tuple(token for token in found if token is not None)

    def writes_first(self, token: int | None) -> bool:
        """Whether encoding a text puts ``token`` ahead of it."""
        return token is not None and any(token in ids for ids in _first_ids(self._after))


def _tokens(content: Mapping[str, Any], vocabulary: Any, name: str) -> Iterator[tuple[str, int]]:
    if isinstance(vocabulary, dict):
        yield from ((token, at) for token, at in vocabulary.items() if isinstance(at, int))
    elif isinstance(vocabulary, list):  # Unigram: pairs of a token and its score
        yield from ((str(row[0]), at) for at, row in enumerate(vocabulary) if row)
    for added in content.get("added_tokens") or ():
        if not isinstance(added, dict) or not isinstance(added.get("id"), int):
            raise ModelUnavailable(f"{name} is damaged")
        yield str(added.get("content")), added["id"]


def _first_ids(processor: Any) -> Iterator[Sequence[int]]:
    """Yield the ids that each template of a post-processor writes ahead of the text."""
    if not isinstance(processor, dict):
        return
    for part in processor.get("processors") or ():
        yield from _first_ids(part)
    single = processor.get("single")
    first = single[0] if isinstance(single, list) and single else None
    special = first.get("SpecialToken") if isinstance(first, dict) else None
    if isinstance(special, dict):
        known = (processor.get("special_tokens") or {}).get(special.get("id")) or {}
        yield known.get("ids") or ()


def int_or_none(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def ints(value: object) -> tuple[int, ...]:
    """Return a number, or a list of numbers, as a tuple; anything else is empty."""
    found = value if isinstance(value, list) else [value]
    return tuple(at for at in found if isinstance(at, int) and not isinstance(at, bool))
