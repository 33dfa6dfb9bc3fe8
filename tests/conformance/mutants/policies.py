"""Defects of the rule language in force, and the checks that see them."""

MUTANTS = {
    "last-rule-wins": ("AIP-ROUTE-009", "ASC-RULE-006", "AIP-ROUTE-016"),
    "every-prompt-long": ("AIP-ROUTE-014",),
    "every-prompt-short": ("AIP-ROUTE-015",),
    "assignments-ignored": ("AIP-ROUTE-016",),
    "only-first-preferred": ("AIP-ROUTE-017",),
    "equals-is-literal": ("AIP-ROUTE-018",),
    "unmet-requirement-dropped": ("AIP-ROUTE-024",),
}
