"""What must turn red when a prediction takes, or gives, what its model's capability does not."""

from typing import Final

MUTANTS: Final = {
    "predict-text-only": ("AIP-API-017",),
    "labels-rising": ("AIP-API-017",),
    "labels-change": ("AIP-API-017",),
    "labels-as-object": ("AIP-API-017",),
    "scores-in-percent": ("AIP-API-017",),
    "addresses-fetched": ("AIP-API-017",),
    "addresses-are-pictures": ("AIP-API-017",),
    "texts-are-pictures": ("AIP-API-017",),
}
