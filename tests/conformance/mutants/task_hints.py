"""Task hints: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "hint-reasoning-second": ("XAI-HDR-030",),
    "hint-coding-second": ("XAI-HDR-031",),
    "hint-creative-second": ("XAI-HDR-032",),
    "hint-analytical-second": ("XAI-HDR-033",),
    "multimodal-ignored": ("XAI-HDR-034",),
    "hint-alias-second": ("XAI-HDR-035",),
    "hint-support-400": ("XAI-HDR-036", "XAI-FIG-011", "XAI-PERF-001", "XAI-PERF-002"),
    "medical-relaxes-security": ("XAI-HDR-037",),
    "hint-medical-400": ("XAI-HDR-037",),
    "hint-financial-400": ("XAI-HDR-038",),
    "hint-marketing-400": ("XAI-HDR-039",),
    "hint-product-400": ("XAI-HDR-040",),
    "unknown-hint-400": ("XAI-HDR-041",),
    "hint-overrides-model": ("XAI-HDR-042",),
}
