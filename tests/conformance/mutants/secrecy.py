"""Secrets: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "providers-x-ai-relayed": ("XAI-RESP-017",),
    "address-told": ("XAI-RESP-018",),
    "forward-client-key": ("XAI-SEC-018",),
    "keys-of-others": ("XAI-SEC-019",),
}
