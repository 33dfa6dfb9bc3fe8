"""Auto parameters and headers together: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "native-beats-threshold": ("XAI-SYNC-010", "XAI-FIG-003"),
    "explicit-model-told": ("XAI-SYNC-011",),
    "cost-limit-cools": ("XAI-SYNC-013",),
    "hint-beats-strategy": ("XAI-SYNC-014",),
    "contradiction-unnamed": ("XAI-SYNC-016",),
}
