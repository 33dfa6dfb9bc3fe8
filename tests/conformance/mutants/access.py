"""Defects of keys, limits, CORS and hardening, and the checks that see them."""

MUTANTS = {
    "predict-open": ("AIP-SECURITY-001",),
    "status-open": ("AIP-API-029",),
    "keys-in-urls": ("AIP-SECURITY-003",),
    "no-retry-after": ("XAI-COMPAT-012",),
    "limits-off": ("XAI-COMPAT-012", "AIP-SECURITY-005", "AIP-SECURITY-006", "AIP-SECURITY-007"),
    "keys-share-a-limit": ("AIP-SECURITY-005",),
    "limited-but-forwarded": ("AIP-SECURITY-007",),
    "limits-race": ("AIP-SECURITY-006",),
    "addresses-believed": ("AIP-SECURITY-008",),
    "preflight-without-x-ai": ("AIP-SECURITY-009",),
    "preflights-need-keys": ("AIP-SECURITY-011",),
    "origins-by-prefix": ("AIP-SECURITY-009", "AIP-SECURITY-010"),
    "errors-without-cors": ("AIP-SECURITY-010",),
    "nothing-exposed": ("XAI-RESP-021",),
    "tenants-share-answers": ("ASC-CACHE-003",),
    "unhardened": ("AIP-SECURITY-012",),
    "bodies-unbounded": ("AIP-SECURITY-013",),
    "two-framings": ("AIP-SECURITY-014",),
    "folding-accepted": ("AIP-SECURITY-014",),
    "spaces-before-colons": ("AIP-SECURITY-014",),
}
