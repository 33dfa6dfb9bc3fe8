"""Ids of tool calls in the only form Mistral takes: nine letters or digits."""

from functools import lru_cache
from hashlib import blake2b
from re import compile as compile_pattern
from typing import Final

_FIT: Final = compile_pattern(r"[A-Za-z0-9]{9}")
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@lru_cache(maxsize=1024)
def fitting(identity: str) -> str:
    """Return ``identity`` when it fits, else an id made from it, always the same."""
    if _FIT.fullmatch(identity):
        return identity
    digest = blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    number = int.from_bytes(digest, "big")
    made = []
    for _ in range(9):
        number, digit = divmod(number, 62)
        made.append(_DIGITS[digit])
    return "".join(made)
