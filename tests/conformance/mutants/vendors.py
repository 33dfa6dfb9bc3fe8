"""Several vendors: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "google-undated": ("XAI-PRIN-001",),
    "stops-dropped": ("XAI-ARCH-006", "ASC-NORM-005"),
    "new-finish-passed-on": ("XAI-ARCH-007",),
    "overload-without-param": ("XAI-COMPAT-009",),
}
