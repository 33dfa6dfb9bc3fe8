"""What must turn red when x-aiproxy is wrong."""

from typing import Final

MUTANTS: Final = {
    "node-missing": ("AIP-API-004",),
    "cost-rounded": ("AIP-API-005", "AIP-API-008", "AIP-BUDGET-001", "ASC-STREAM-002"),
    "latency-constant": ("AIP-API-006", "XAI-RESP-037"),
    "cost-null-on-responses": ("AIP-BUDGET-013",),
    "x-aiproxy-early": ("AIP-API-008",),
}
