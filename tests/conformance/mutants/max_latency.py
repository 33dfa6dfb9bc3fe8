"""The latency limit: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "latency-any-number": ("XAI-HDR-060",),
    "slow-unreported": ("XAI-HDR-061",),
    "unmeasured-first": ("XAI-HDR-062",),
    "all-slow-relaxed": ("XAI-HDR-063",),
    "three-limits-drop-latency": ("XAI-AUTO-013",),
}
