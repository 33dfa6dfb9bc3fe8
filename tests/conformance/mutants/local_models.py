"""What must turn red when a local model takes on too much, or says the wrong thing about it."""

from typing import Final

MUTANTS: Final = {
    "busy-told-as-overloaded": ("AIP-FAIL-006",),
    "local-queue-unbounded": ("AIP-PROV-004",),
}
