"""The quality threshold: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "exponent-quality-ok": ("XAI-HDR-056",),
    "threshold-exclusive": ("XAI-HDR-057",),
    "unrated-is-good": ("XAI-HDR-058",),
    "high-threshold-relaxed": ("XAI-HDR-059",),
}
