"""Between text and token ids: a ``tokenizer.json``, with care for what counts as a marker.

A marker is an added token that the tokenizer calls special, or that the chat template writes. What
a template writes is read with markers; what a client writes is text, whatever it spells.
"""

import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aiproxy.reference_server.onnx.errors import ModelUnavailable

#: What a token that is not special must look like to be a marker; white space is often a token too.
BRACKETED: Final = re.compile(r"[<\[][^\s]+[>\]]")
#: Where a space is put before the first word of a whole text only.
FIRST_ONLY: Final = '"prepend_scheme": "first"'
NEVER: Final = '"prepend_scheme": "never"'
BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: Characters that are read in about a millisecond.
SHORT_TEXT: Final = 2_000
#: The sign SentencePiece writes for a space.
SPACE_SIGN: Final = "\u2581"


class TextTokenizer:
    """The tokenizer of one text model. Its methods may be called from any thread."""

    def __init__(self, content: str, template: str | None = None, *, guarded: bool = True) -> None:
        """``content`` is tokenizer.json, ``template`` the Jinja text that writes its markers. A
        tokenizer that is not ``guarded`` takes half the memory and cannot ``encode_text``.

        Raises:
            ModelUnavailable: the content is damaged, or the tokenizers package is missing.
        """
        try:
            described: dict[str, Any] = json.loads(content)
            marks = _marks(described, template or "")
            unmarked = list(_unmarked(described, marks))
            later = json.dumps(described.get("pre_tokenizer"))
            self._byte_level: Final = '"ByteLevel"' in json.dumps(described.get("decoder"))
        except (AttributeError, KeyError, TypeError, ValueError) as damaged:
            raise ModelUnavailable("tokenizer.json is damaged") from damaged
        self._marks: Final = marks
        #: Markers, the longest first, which is how they are looked for.
        self.markers: Final = tuple(sorted(marks, key=len, reverse=True))
        self.special: Final = tuple(mark for mark in self.markers if marks[mark].get("special"))
        self._pattern: Final = re.compile("|".join(map(re.escape, self.markers)) or r"(?!)")
        self._reading = _opened(content)
        # Made now and not at the first text that spells a marker: it takes a second or so where
        # the vocabulary is large.
        self._plain = self._plain_later = None
        if guarded:
            described["added_tokens"] = unmarked
            self._plain = self._plain_later = _opened(json.dumps(described, ensure_ascii=False))
            if FIRST_ONLY in later:
                described["pre_tokenizer"] = json.loads(later.replace(FIRST_ONLY, NEVER))
                self._plain_later = _opened(json.dumps(described, ensure_ascii=False))

    @property
    def vocabulary(self) -> int:
        """How many token ids there are, added tokens included."""
        return int(self._reading.get_vocab_size(with_added_tokens=True))

    def token_id(self, text: str) -> int | None:
        """Return the id of the token spelled ``text``, if there is one."""
        found: int | None = self._reading.token_to_id(text)
        return found

    def is_special(self, text: str) -> bool:
        """Whether ``text`` is a token that decoding leaves out unless asked to show it."""
        return bool(self._marks.get(text, {}).get("special"))

    def encode(self, text: str, *, begin: bool = False) -> list[int]:
        """Return the ids of ``text`` with markers read; ``begin`` adds what the tokenizer puts
        around a whole text, usually a begin token."""
        return _ids(self._reading, text, begin)

    def encode_text(self, text: str, *, first: bool = True) -> list[int]:
        """Return the ids of ``text`` as nothing but text; ``first``: nothing is before it."""
        reader = self._plain if first else self._plain_later
        return _ids(reader, text, begin=False)

    def decode(self, ids: Sequence[int], show_special: bool = False) -> str:
        """Return the text of ``ids``; special tokens show only when asked for."""
        text: str = self._reading.decode(list(ids), skip_special_tokens=not show_special)
        return text

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes ``token`` stands for; of a special token its name."""
        text = self._reading.id_to_token(token)
        if text is None:
            return b""
        if text in self._marks:
            return str(text).encode()
        if self._byte_level:
            return b"".join(_BYTES[char] if char in _BYTES else char.encode() for char in text)
        byte = BYTE_TOKEN.fullmatch(text)
        return bytes.fromhex(byte[1]) if byte else str(text).replace(SPACE_SIGN, " ").encode()

    def encode_rendered(
        self, rendered: str, spelled: "re.Pattern[str]", texts: Sequence[str]
    ) -> list[int]:
        """Return the ids of a ``rendered`` template in which clients spelled markers.

        Each such marker was replaced; ``spelled`` finds the replacements, and its group 1 is the
        place of the original in ``texts``. The template's own markers are read, all else is text.
        """
        ids: list[int] = []
        at = 0
        for found in self._pattern.finditer(rendered):
            if found.start() < at:
                continue
            row = self._marks[found[0]]
            before, end = rendered[at : found.start()], found.end()
            if row.get("lstrip"):
                before = before.rstrip()
            if row.get("rstrip"):
                end += len(rendered[end:]) - len(rendered[end:].lstrip())
            ids += self._segment(before, at, spelled, texts)
            ids.append(int(row["id"]))
            at = end
        return ids + self._segment(rendered[at:], at, spelled, texts)

    def _segment(
        self, text: str, at: int, spelled: "re.Pattern[str]", texts: Sequence[str]
    ) -> list[int]:
        if not text:
            return []
        return self.encode_text(
            spelled.sub(lambda found: texts[int(found[1])], text), first=at == 0
        )


def _marks(described: Mapping[str, Any], template: str) -> dict[str, Mapping[str, Any]]:
    """Return the markers of a tokenizer.json, with what it says of each."""
    rows = described.get("added_tokens") or []
    return {
        str(row["content"]): row
        for row in rows
        if row["content"]
        and (
            row.get("special")
            or (BRACKETED.fullmatch(row["content"]) and row["content"] in template)
        )
    }


def _unmarked(
    described: Mapping[str, Any], marks: Mapping[str, Any]
) -> Iterator[Mapping[str, Any]]:
    """Yield the added tokens with markers respelled so that no text spells them.

    Tokens that the model's own vocabulary lacks are numbered in turn, so leaving one out would give
    its number to the next; one that the vocabulary has takes no number and is left out.
    """
    vocabulary = described["model"]["vocab"]
    if isinstance(vocabulary, list):  # of pairs, a piece and its score
        vocabulary = {row[0] for row in vocabulary}
    word = secrets.token_hex(12)
    for row in described.get("added_tokens") or []:
        if row["content"] not in marks:
            yield row
        elif row["content"] not in vocabulary:
            yield {**row, "content": f"{word}{row['id']}"}


def _ids(reader: Any, text: str, begin: bool) -> list[int]:
    if len(text) < SHORT_TEXT:
        ids: list[int] = reader.encode(text, add_special_tokens=begin).ids
        return ids
    # Unlike encode this lets other threads run meanwhile.
    ids = reader.encode_batch_fast([text], add_special_tokens=begin)[0].ids
    return ids


def _opened(content: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as missing:
        raise ModelUnavailable("tokenizers is missing; pip install 'aiproxy[onnx]'") from missing
    try:
        reader = Tokenizer.from_str(content)
    except Exception as damaged:  # tokenizers raises bare Exception
        raise ModelUnavailable("tokenizer.json is damaged") from damaged
    # A file may have been saved with the limits of a training run.
    reader.no_truncation()
    reader.no_padding()
    return reader


def read_tokenizer(
    path: Path, template: str | None = None, *, guarded: bool = True
) -> TextTokenizer:
    """Return the tokenizer of a file; see ``TextTokenizer``.

    Raises:
        ModelUnavailable: it is missing or damaged, or the tokenizers package is missing.
    """
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError as missing:
        raise ModelUnavailable(f"{path.name} is missing or cannot be read") from missing
    except UnicodeDecodeError as damaged:
        raise ModelUnavailable(f"{path.name} is damaged") from damaged
    return TextTokenizer(content, template, guarded=guarded)


def _byte_signs() -> dict[str, bytes]:
    """The printable sign that byte-level vocabularies write for each byte."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    signs = {chr(byte): bytes([byte]) for byte in printable}
    return signs | {chr(256 + at): bytes([byte]) for at, byte in enumerate(others)}


_BYTES: Final = _byte_signs()
