"""What must turn red when failures are followed by the wrong thing."""

from typing import Final

MUTANTS: Final = {
    "plain-500-is-final": ("AIP-FAIL-001",),
    "chain-ignored": ("AIP-FAIL-002",),
    "attempts-told-backwards": ("UNI-ROUTE-007", "XAI-FAIL-017"),
    "max-retries-ignored": ("AIP-FAIL-004",),
    "pause-before-next": ("AIP-FAIL-005", "UNI-BENCH-004"),
    "retry-delay-ignored": ("AIP-FAIL-005",),
    "failed-usage-ignored": ("AIP-FAIL-010",),
    "close-is-final": ("AIP-PROB-003", "XAI-PRIN-002"),
}
