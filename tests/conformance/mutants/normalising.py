"""What must turn red when vendors show through."""

from typing import Final

MUTANTS: Final = {
    "deepseek-field-left": ("AIP-PROB-001",),
    "openai-drops-tools": ("UNI-PROV-001",),
    "vendor-error-type": ("UNI-PROTO-003",),
    "splits-at-line-separators": ("UNI-PROTO-004",),
}
