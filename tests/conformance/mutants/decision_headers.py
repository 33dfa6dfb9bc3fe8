"""Decision headers: each defect of the right router and the checks that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "headers-folded": ("XAI-RESP-001",),
    "headers-pretty": ("XAI-RESP-002",),
    "headers-unbounded": ("XAI-RESP-003",),
    "used-told-unasked": ("XAI-RESP-004",),
    "mapped-is-public-name": ("XAI-RESP-006",),
    "names-unmapped": ("XAI-RESP-007",),
    "two-content-types": ("XAI-RESP-020",),
    "vendor-member-when-auto": ("XAI-PRIN-007",),
}
