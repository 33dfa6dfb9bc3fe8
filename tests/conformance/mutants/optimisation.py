"""Defects of optimising, and the checks that see them."""

MUTANTS = {
    "unknown-price-first": ("AIP-ROUTE-010",),
    "good-enough-unsorted": ("AIP-ROUTE-007", "UNI-ROUTE-006"),
    "classes-by-priority": ("ASC-CAP-002",),
    "narrow-is-enough": ("ASC-RULE-003",),
    "configured-latency-ignored": ("AIP-ROUTE-011", "XAI-PERF-007"),
    "latency-mean": ("ASC-RULE-004",),
    "failures-count-as-latency": ("XAI-PERF-007",),
    "availability-ignored": ("AIP-ROUTE-012",),
    "down-for-good": ("AIP-USE-001",),
    "predict-strategy-ignored": ("AIP-API-013",),
    "predict-limit-ignored": ("AIP-API-014",),
    "seeds-are-cached": ("ASC-CACHE-006",),
}
