"""Defects in what decision headers say, and the checks that see them."""

MUTANTS = {
    "selection-is-a-list": ("XAI-RESP-008",),
    "mapping-always": ("XAI-RESP-009",),
    "decisions-one-short": ("XAI-RESP-010",),
    "confidence-percent": ("XAI-RESP-012",),
    "failover-time-invented": ("XAI-RESP-037",),
    "streams-spend-more": ("XAI-STREAM-013",),
    "call-pieces-lost": ("XAI-STREAM-015",),
}
