"""Proof of origin: text and numbers that only the fake provider asked could have produced.

Everything is an HMAC-SHA256 under the secret of the run, so the suite recomputes it and a target
cannot guess it.
"""

import hmac
import random
import re
from collections.abc import Iterable, Sequence
from typing import Final

# Whatever may stand before it: in JSON a line break before it ends in the letter n.
NONCE: Final = re.compile(rb"ref-[A-Za-z0-9]{12}(?![A-Za-z0-9])")
PROOF: Final = re.compile(r"proof-([0-9a-f]{24})")
_HEX: Final = 24


def nonces(data: bytes) -> list[str]:
    """Return the nonces in ``data``, in order."""
    return [found.decode() for found in NONCE.findall(data)]


class Proofs:
    """Makes and recognises proofs under one secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def mark(self, nonce: str, provider_id: str) -> str:
        """Return the 24 hexadecimal digits of the proof."""
        return self._digest(nonce, provider_id).hex()[:_HEX]

    def proof(self, nonce: str, provider_id: str) -> str:
        """Return the text of a healthy answer of ``provider_id`` to a prompt with ``nonce``."""
        return f"proof-{self.mark(nonce, provider_id)}"

    def origin(self, text: str, nonce: str, provider_ids: Iterable[str]) -> str:
        """Return which of ``provider_ids`` made ``text``, or nothing.

        The digits alone count too: ids of tool calls carry them without the word before them.
        """
        return next((one for one in provider_ids if self.mark(nonce, one) in text), "")

    def vector(self, nonce: str, provider_id: str, place: int, size: int) -> list[float]:
        """Return the embedding of input ``place``: ``size`` numbers, exact in 32-bit floats."""
        found: list[float] = []
        block = 0
        while len(found) < size:
            digest = self._digest(nonce, provider_id, "vector", str(place), str(block))
            found += [(byte - 127.5) / 128 for byte in digest]
            block += 1
        return found[:size]

    def origin_of_vector(
        self, vector: Sequence[float], nonce: str, provider_ids: Iterable[str], place: int = 0
    ) -> str:
        """Return which of ``provider_ids`` made ``vector``, or nothing."""
        given = [round(value * 256) for value in vector]
        for one in provider_ids:
            own = self.vector(nonce, one, place, len(given))
            if given and given == [round(value * 256) for value in own]:
                return one
        return ""

    def chance(self, *parts: str) -> random.Random:
        """Return numbers nobody can guess that are the same each time for the same ``parts``."""
        return random.Random(self._digest("chance", *parts))  # noqa: S311 (seeded by an HMAC)

    def id(self, *parts: str) -> str:
        """Return 24 hexadecimal digits that identify, and prove nothing."""
        return self._digest("id", *parts).hex()[:_HEX]

    def _digest(self, *parts: str) -> bytes:
        return hmac.digest(self._secret, "\0".join(parts).encode(), "sha256")
