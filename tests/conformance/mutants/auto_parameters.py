"""Auto values of the body: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "reasoning-auto-left": ("XAI-AUTO-005",),
    "zero-limit-for-short": ("XAI-AUTO-006",),
    "fallbacks-see-nothing": ("XAI-AUTO-012",),
    "limit-without-basis": ("XAI-AUTO-017",),
    "usage-clamped": ("XAI-AUTO-018",),
    "zero-limit-ok": ("XAI-AUTO-019",),
    "limit-above-model": ("XAI-AUTO-020",),
    "limit-above-context": ("XAI-AUTO-020",),
    "schema-flattened": ("XAI-AUTO-023",),
    "any-schema": ("XAI-AUTO-025",),
}
