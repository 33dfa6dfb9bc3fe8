"""What must turn red when embeddings are wrong."""

from typing import Final

MUTANTS: Final = {
    "vectors-reversed": ("AIP-API-030",),
    "anyone-embeds": ("AIP-API-031",),
    "openai_compatible-drops-encoding_format": ("AIP-API-032",),
}
