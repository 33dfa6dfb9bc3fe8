"""Defects of health and circuits, and the checks that see them."""

MUTANTS = {
    "circuit-opens-at-once": ("ASC-CB-001",),
    "circuit-never-opens": (
        "AIP-LB-004", "ASC-CB-001", "ASC-CB-002", "ASC-CB-003", "ASC-CB-005", "ASC-HEALTH-003",
        "ASC-RULE-002", "AIP-API-022",
    ),
    "circuit-never-closes": ("AIP-LB-005", "ASC-CB-004", "AIP-API-022"),
    "open-circuit-waits": ("ASC-CB-002",),
    "pauses-shrink": ("ASC-CB-003", "ASC-HEALTH-003"),
    "no-back-off": ("ASC-HEALTH-003",),
    "probes-in-crowds": ("ASC-CB-005",),
    "threshold-fixed": ("ASC-RULE-002",),
}  # fmt: skip
