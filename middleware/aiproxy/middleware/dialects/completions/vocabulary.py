"""What this dialect calls itself."""

from typing import Final

DIALECT: Final = "completions"
