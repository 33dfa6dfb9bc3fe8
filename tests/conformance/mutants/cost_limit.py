"""The cost limit: each defect of the right router and the check that must notice it."""

MUTANTS: dict[str, tuple[str, ...]] = {
    "amount-with-sign": ("XAI-HDR-064",),
    "prompt-only-worst-case": ("XAI-HDR-065",),
    "dear-unreported": ("XAI-HDR-065",),
    "no-price-unknown": ("XAI-HDR-066",),
    "zero-limit-means-none": ("XAI-HDR-067",),
    "cost-in-cents": ("XAI-HDR-068",),
}
