"""Defects of tools on their way through vendors, and the check that sees them."""

MUTANTS = {"arguments-encoded-twice": ("ASC-NORM-007",)}
