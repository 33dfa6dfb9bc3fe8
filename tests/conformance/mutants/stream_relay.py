"""Streams that go well: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "slow-streams-are-json": ("XAI-STREAM-001",),
    "slow-streams-untold": ("XAI-STREAM-003",),
    "errors-as-events": ("XAI-STREAM-010",),
    "openai-streams-buffered": ("XAI-STREAM-011",),
    "disconnect-ignored": ("XAI-STREAM-012",),
    "usage-not-streamed": ("XAI-STREAM-014",),
    "streams-cacheable": ("XAI-STREAM-016",),
    "stream-cut-characters": ("XAI-STREAM-017",),
}
