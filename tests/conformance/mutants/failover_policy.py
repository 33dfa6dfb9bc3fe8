"""Defects of X-AI-Failover-Policy, and the checks that see them."""

MUTANTS = {
    "none-fails-over": ("XAI-HDR-069",),
    "automatic-is-none": ("XAI-HDR-070",),
    "manual-like-none": ("XAI-HDR-071",),
    "unknown-policy-ok": ("XAI-HDR-073",),
    "failover-config-ignored": ("XAI-HDR-074",),
}
