"""Routing strategies: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "cost-second": ("XAI-HDR-023",),
    "latency-second": ("XAI-HDR-024",),
    "quality-second": ("XAI-HDR-025",),
    "capability-second": ("XAI-HDR-026",),
    "balanced-second": ("XAI-HDR-027",),
    "unknown-strategy-ok": ("XAI-HDR-028",),
    "alias-second": ("XAI-HDR-029",),
}
