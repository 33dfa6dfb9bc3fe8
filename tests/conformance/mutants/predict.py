"""What must turn red when /aiproxy/predict is wrong."""

from typing import Final

MUTANTS: Final = {
    "predict-same-id": ("AIP-API-010",),
    "predict-euro": ("AIP-API-011",),
    "predict-cost-rounded": ("AIP-API-016",),
    "tried-only-last": ("AIP-API-012",),
    "failovers-off-by-one": ("AIP-FAIL-007",),
    "timeout-any": ("AIP-API-015",),
    "attempts-after-deadline": ("AIP-FAIL-009",),
    "predict-own-errors": ("AIP-API-018",),
}
