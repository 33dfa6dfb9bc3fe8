"""Reports of failovers: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "failover-always-true": ("XAI-RESP-014",),
    "reason-always-timeout": ("XAI-FAIL-011",),
    "failover-took-no-time": ("XAI-FAIL-012", "XAI-RESP-037"),
}
