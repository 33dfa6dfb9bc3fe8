"""Defects in the reading of X-AI request headers, and the checks that see them."""

MUTANTS = {
    "header-case": ("XAI-HDR-002",),
    "header-space-kept": ("XAI-HDR-003",),
    "duplicate-takes-last": ("XAI-HDR-004",),
    "csv-first-line-only": ("XAI-HDR-005",),
    "forward-x-ai-headers": ("XAI-HDR-007",),
    "long-header-ok": ("XAI-HDR-008",),
    "control-octets-500": ("XAI-HDR-009",),
    "empty-header-ignored": ("XAI-HDR-010",),
    "header-error-as-text": ("XAI-HDR-010", "XAI-HDR-011"),
    "header-error-unnamed": ("XAI-HDR-010", "XAI-HDR-011"),
    "header-error-code": ("XAI-HDR-011",),
    "switch-true-ok": ("XAI-HDR-012",),
    "switch-case": ("XAI-HDR-012",),
    "models-read-headers": ("XAI-HDR-077",),
}
