"""Tools of auto and their categories: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "first-category-only": ("XAI-HDR-043",),
    "unlisted-category-drops-all": ("XAI-HDR-044",),
    "code-exec-unknown": ("XAI-HDR-045",),
    "image-tool-left-out": ("XAI-HDR-046",),
    "web-scraping-hidden": ("XAI-HDR-047",),
    "reporting-hidden": ("XAI-HDR-048",),
    "weather-hidden": ("XAI-HDR-049",),
    "categories-touch-explicit-tools": ("XAI-HDR-050",),
    "foreign-tool": ("XAI-AUTO-003",),
    "bare-tools-sent": ("XAI-TOOL-005",),
    "shell-slips-in": ("XAI-TOOL-006",),
    "any-tool-choice": ("XAI-TOOL-014",),
    "tools-any": ("XAI-TOOL-016",),
}
