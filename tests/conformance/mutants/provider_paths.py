"""What must turn red when providers are reached the wrong way."""

from typing import Final

MUTANTS: Final = {
    "text-json-to-openai": ("AIP-PROV-007",),
    "slash-doubled": ("AIP-CFG-060",),
    "azure-by-bearer": ("UNI-STAT-001",),
    "no-fixed-headers": ("UNI-STAT-001",),
    "key-for-the-keyless": ("UNI-PROV-006",),
    "connection-per-call": ("UNI-STAT-005",),
    "connections-unbounded": ("UNI-STAT-005",),
    "no-together": ("UNI-PROV-003",),
    "no-groq": ("UNI-PROV-004",),
    "no-lmstudio": ("UNI-PROV-007",),
    "no-localai": ("UNI-PROV-008",),
    "no-vllm": ("UNI-PROV-009",),
    "no-huggingface": ("UNI-PROV-012",),
    "no-fireworks": ("UNI-PROV-013",),
}
