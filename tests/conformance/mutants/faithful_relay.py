"""Faithful relay: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "user-dropped": ("XAI-COMPAT-002",),
    "penalty-dropped": ("AIP-API-002",),
    "auto-choice-dropped": ("XAI-AUTO-004",),
    "required-becomes-auto": ("XAI-TOOL-013",),
    "name-lost-after-504": ("XAI-PRIN-005",),
    "no-idempotency": ("XAI-FAIL-024",),
}
