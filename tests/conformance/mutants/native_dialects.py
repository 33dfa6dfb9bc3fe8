"""What must turn red when requests and answers are translated wrong."""

from typing import Final

MUTANTS: Final = {
    "google-drops-top_p": ("ASC-NORM-001",),
    "cohere-field-left": ("ASC-NORM-002", "XAI-PRIN-001"),
    "vendor-model-told": ("ASC-NORM-003",),
    "first-part-only": ("ASC-NORM-004",),
    "stops-dropped": ("ASC-NORM-005",),
}
