"""Defects in what the draft's figures ask for, and the checks that see them."""

MUTANTS = {
    "figure-1-second": ("XAI-FIG-001",),
    "figure-2-claims-native": ("XAI-FIG-002",),
    "figure-3-refused": ("XAI-FIG-003", "XAI-SYNC-010"),
    "figure-4-moves": ("XAI-FIG-004", "XAI-SYNC-011"),
    "figure-6-sum-wrong": ("XAI-FIG-006",),
    "figure-7-own-names": ("XAI-FIG-007",),
    "figure-8-dearest": ("XAI-FIG-008",),
    "figure-9-without-done": ("XAI-FIG-009",),
    "figure-10-one-call": ("XAI-FIG-010",),
    "figure-11-second": ("XAI-FIG-011",),
    "figure-12-second": ("XAI-FIG-012", "XAI-PERF-005"),
    "claims-beat-measures": ("XAI-FIG-011", "XAI-PERF-001"),
    "latency-invented": ("XAI-PERF-002", "XAI-RESP-037"),
    "figure-14-flagless": ("XAI-FIG-014",),
    "turns-dropped": ("XAI-FAIL-001", "XAI-FAIL-003", "XAI-REASON-003"),
    "hasty": ("XAI-FAIL-016",),
    "second-overload-is-final": ("XAI-FIG-018", "XAI-FAIL-016"),
    "cascade-stops-early": ("XAI-FIG-019",),
    "cascade-retold": ("XAI-FAIL-017",),
    "cascade-below-threshold": ("XAI-FAIL-018",),
}
