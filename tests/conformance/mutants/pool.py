"""Defects of X-AI-Provider-Pool, and the checks that see them."""

MUTANTS = {
    "pool-left-behind": ("XAI-HDR-016",),
    "pool-of-one-alias": ("XAI-HDR-017", "XAI-RESP-005"),
    "pool-spaces-kept": ("XAI-HDR-018",),
    "pool-duplicates-kept": ("XAI-HDR-018",),
    "unknown-pool-422": ("XAI-HDR-019",),
    "unknown-pool-unreported": ("XAI-HDR-019",),
    "unknown-pool-widens": ("XAI-HDR-020",),
    "pool-order-counts": ("XAI-HDR-021",),
    "pool-replaces-model": ("XAI-HDR-022", "XAI-SYNC-014"),
}
