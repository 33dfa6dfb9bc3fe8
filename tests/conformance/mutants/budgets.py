"""Defects of budgets and costs, and the checks that see them."""

MUTANTS = {
    "limit-noticed-late": ("AIP-BUDGET-003", "AIP-BUDGET-004", "AIP-BUDGET-009"),
    "no-monthly_limit": ("AIP-BUDGET-004",),
    "paid-stay-on": ("AIP-BUDGET-007", "AIP-USE-003"),
    "exhaustion-stops-all": ("AIP-BUDGET-008",),
    "no-reservation": ("AIP-BUDGET-009",),
    "failures-stay-reserved": ("AIP-BUDGET-010",),
    "stream-usage-ignored": (
        "AIP-BUDGET-001", "ASC-STREAM-002", "XAI-STREAM-014", "AIP-API-008",
    ),
}  # fmt: skip
