"""Reasoning: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "native-last": ("XAI-REASON-001",),
    "enhanced-last": ("XAI-REASON-002",),
    "instruction-twice": ("XAI-REASON-003",),
    "instruction-for-native-alone": ("XAI-REASON-003",),
    "no-native-422": ("XAI-REASON-004",),
    "messages-rewritten": ("XAI-REASON-005",),
    "reasoning-moves-model": ("XAI-REASON-006",),
    "reasoning-any": ("XAI-REASON-011",),
    "claims-what-was-preferred": ("XAI-HDR-051",),
    "enhanced-unwanted": ("XAI-HDR-052",),
    "preference-without-instruction": ("XAI-HDR-053",),
    "unknown-preference-ok": ("XAI-HDR-054",),
    "preference-acts-on-explicit": ("XAI-HDR-055",),
}
