"""Defects of one path alone, and the check that sees them."""

MUTANTS = {
    "responses-ignore-policy": ("XAI-HDR-076",),
}
