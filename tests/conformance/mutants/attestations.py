"""Defects of security requirements and data classes, and the checks that see them."""

MUTANTS = {
    "first-label-only": ("XAI-SEC-003", "XAI-SEC-027", "XAI-SEC-009", "XAI-FIG-016"),
    "fallbacks-unattested": ("XAI-SEC-027",),
    "hipaa-ignored": ("XAI-SEC-003", "XAI-SEC-004", "XAI-SYNC-004", "XAI-HDR-037"),
    "pii-ignored": ("XAI-SEC-005",),
    "pci-dss-ignored": ("XAI-SEC-006",),
    "sovereignty-ignored": ("XAI-SEC-007",),
    "unknown-label-ok": ("XAI-SEC-009",),
    "unknown-class-ok": ("XAI-SEC-013",),
    "class-regions-ignored": ("XAI-SEC-011", "ASC-CAP-004"),
    "compliance-invented": ("XAI-SEC-014",),
    "mixed-is-half-strict": ("XAI-SEC-012",),
    "local-only-ignored": ("AIP-SECURITY-015",),
    "disabled-drops-security": ("XAI-SYNC-004",),
    "certificates-unchecked": ("XAI-SEC-024", "XAI-FAIL-006"),
    "client-addresses-called": ("XAI-SEC-026",),
}
