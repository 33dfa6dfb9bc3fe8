"""Defects of X-AI-Multi-Provider, and the checks that see them."""

MUTANTS = {
    "enabled-alone-ignored": ("XAI-HDR-013",),
    "disabled-fails-over": ("XAI-HDR-014",),
    "hint-alone-ignored": ("XAI-HDR-015",),
    "disabled-sends-reasoning": ("XAI-SYNC-002",),
    "disabled-honours-pool": ("XAI-SYNC-003",),
    "plain-auto-selects": ("XAI-SYNC-007",),
    "disabled-draft-tools": ("XAI-SYNC-012",),
    "figure-5-fails": ("XAI-FIG-005",),
}
