"""Defects of merges, and the checks that see them."""

MUTANTS = {
    "merge-skips-unknown": ("XAI-WF-010", "XAI-FIG-021"),
    "ambiguous-merge-guesses": ("XAI-WF-011",),
    "unfinished-branch-merged": ("XAI-WF-012",),
}
