"""Tool calls on their way back: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "calls-untyped": ("XAI-TOOL-007",),
    "arguments-as-object": ("XAI-TOOL-008",),
    "calls-reversed": ("XAI-TOOL-009",),
    "calls-share-an-id": ("XAI-TOOL-009",),
    "finish-inside-message": ("XAI-TOOL-010",),
    "provider-tool-names": ("XAI-TOOL-011", "XAI-FIG-007", "XAI-FIG-010"),
    "any-call-id": ("XAI-TOOL-012",),
    "history-untranslated": ("XAI-TOOL-012",),
}
