"""Any headers together: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "cascade-below-threshold": ("XAI-HDR-072", "XAI-FAIL-018"),
    "untried-headers-500": ("XAI-HDR-078",),
    "restless": ("XAI-HDR-079",),
}
