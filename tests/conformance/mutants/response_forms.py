"""Both forms of /v1/responses: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "draft-no-choices": ("XAI-COMPAT-013",),
    "choices-in-responses": ("XAI-COMPAT-014",),
    "both-shapes-ok": ("XAI-COMPAT-015",),
    "draft-chat-chunks": ("XAI-STREAM-004",),
    "draft-without-done": ("XAI-STREAM-005", "XAI-FIG-009"),
    "events-unnumbered": ("XAI-STREAM-007",),
}
