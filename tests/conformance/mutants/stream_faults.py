"""Streams that break: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "asks-on-after-break": ("XAI-STREAM-002",),
    "stream-503-is-final": ("XAI-STREAM-008",),
    "unfinished-is-complete": ("XAI-STREAM-009",),
}
