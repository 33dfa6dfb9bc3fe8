"""Defects of workflows' branches, and the checks that see them."""

MUTANTS = {
    "branches-refused": ("XAI-WF-002", "XAI-WF-010", "XAI-WF-011"),
    "branch-without-base": ("XAI-WF-006", "XAI-FIG-020"),
    "branch-sees-sibling": ("XAI-WF-006", "XAI-FIG-020"),
    "merge-writes-base": ("XAI-WF-006",),
    "merge-first-only": ("XAI-WF-001", "XAI-WF-009", "XAI-FIG-020"),
    "merge-reordered": ("XAI-WF-009",),
    "merge-twice": ("XAI-WF-009",),
    "merge-unreported": ("XAI-FIG-021",),
    "unknown-conversation-ok": ("XAI-WF-003",),
    "foreign-conversation-ok": ("XAI-WF-003",),
    "branch-any-name": ("XAI-WF-004",),
    "branch-without-parent-ok": ("XAI-WF-005",),
    "branches-one-at-a-time": ("XAI-WF-007",),
    "labels-not-inherited": ("XAI-WF-015",),
}
