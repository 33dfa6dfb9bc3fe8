"""Amounts, prices, what a request may cost, and what was spent."""
