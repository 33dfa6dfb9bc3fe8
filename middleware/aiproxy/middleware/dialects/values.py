"""The decorator of the canonical form's values.

To type checkers it is ``dataclasses.dataclass``: values are frozen, and mypy and pyright refuse an
assignment to one. At run time nobody looks again: a frozen dataclass sets each member through
``object.__setattr__``, which made building the values half the cost of a translation. Values that
are equal have one hash all the same.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(*, frozen: bool, slots: bool) -> Any:
        """Return the decorator of a class of values."""
        return dataclasses.dataclass(slots=slots, unsafe_hash=frozen)


__all__ = ["dataclass"]
