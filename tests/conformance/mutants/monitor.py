"""Defects of looking after providers, and the check that sees them."""

MUTANTS = {
    "no-monitor": ("XAI-FAIL-015",),
    "monitor-looks-once": ("XAI-FAIL-015",),
}
