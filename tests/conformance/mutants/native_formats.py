"""What must turn red when a provider is not spoken to in its own way."""

from typing import Final

MUTANTS: Final = {
    "anthropic-bearer-too": ("AIP-PROV-008",),
    "translated-streams-buffered": ("ASC-STREAM-003",),
    "account-unescaped": ("AIP-PROV-006",),
    "cohere-drops-tools": ("UNI-PROV-005", "XAI-ARCH-006"),
    "google-drops-tools": ("ASC-NORM-009", "XAI-ARCH-006"),
}
