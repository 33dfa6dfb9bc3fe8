"""Many at once: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "used-is-last-asked": ("XAI-RESP-005",),
}
