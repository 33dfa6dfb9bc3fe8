"""Causes of failover: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "pools-wait-on": ("XAI-FAIL-005",),
    "unknown-host-is-final": ("XAI-FAIL-006",),
    "529-is-final": (
        "XAI-FAIL-007",
        "UNI-PROTO-003",
        "XAI-COMPAT-009",
        "XAI-FIG-019",
        "XAI-HDR-072",
    ),
    "422-fails-over": ("XAI-FAIL-008",),
    "403-passed-on": ("XAI-FAIL-009",),
    "wrong-shape-passed-on": ("XAI-FAIL-010",),
    "upstream-words-told": ("XAI-FAIL-022",),
    "failover-leaves-pool": ("XAI-FAIL-023",),
    "outage-tires": ("XAI-PRIN-002",),
}
