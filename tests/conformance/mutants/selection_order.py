"""What must turn red when the wrong candidates are asked."""

from typing import Final

MUTANTS: Final = {
    "asks-before-reading": ("AIP-ROUTE-001",),
    "images-to-anyone": ("AIP-ROUTE-002", "XAI-AUTO-012", "XAI-HDR-034", "ASC-CAP-002"),
    "one-reason-for-all": ("AIP-ROUTE-002",),
    "hedges-when-slow": ("AIP-ROUTE-004",),
    "never-a-fourth": ("AIP-ROUTE-005",),
    "favourites-wander": ("AIP-ROUTE-006",),
    "strategy-takes-no-turns": ("AIP-ROUTE-013",),
    "require-prefers": ("ASC-RULE-001", "AIP-ROUTE-018", "AIP-ROUTE-024"),
}
