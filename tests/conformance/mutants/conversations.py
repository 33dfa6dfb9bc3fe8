"""Defects of conversations over several turns, and the checks that see them."""

MUTANTS = {
    "no-conversation-id": ("XAI-FAIL-002",),
    "conversation-id-changes": ("XAI-FAIL-002", "XAI-FIG-013"),
    "guessable-ids": ("XAI-FAIL-002",),
    "failover-forgets-history": ("XAI-FIG-013",),
    "history-lost": ("XAI-FIG-013", "XAI-FAIL-026"),
    "turns-overwrite": ("XAI-FAIL-026",),
}
