"""Defects of auto values, and the checks that see them."""

MUTANTS = {
    "auto-needs-a-limit": ("XAI-AUTO-001",),
    "plain-auto-goes-upstream": ("XAI-AUTO-002",),
    "auto-temperature-ok": ("XAI-AUTO-008",),
    "auto-any-case": ("XAI-AUTO-009",),
    "draft-auto-not-echoed": ("XAI-AUTO-015",),
    "no-auto-tools-with-reasoning": ("XAI-AUTO-016",),
    "decides-unasked": ("XAI-AUTO-016",),
    "n-dropped": ("XAI-AUTO-027",),
    "auto-not-in-drafts": ("XAI-AUTO-028",),
    "wishes-move-models": ("XAI-AUTO-030", "XAI-SYNC-001"),
    "set-aside-untold": ("XAI-SYNC-001",),
    "effort-dropped": ("XAI-REASON-007",),
}
