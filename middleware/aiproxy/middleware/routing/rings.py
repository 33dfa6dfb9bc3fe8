"""Long lists that take turns: every provider's first model that passes, and the first others."""

from collections.abc import Sequence

from aiproxy.middleware.registry import Model
from aiproxy.middleware.routing.walking import Check, Places, Steps, passing


class Rings:
    """``parts`` are places in the order that breaks ties; those of a later part come after all of an
    earlier one."""

    def __init__(self, models: Sequence[Model], parts: Sequence[Places]) -> None:
        self._parts: list[tuple[Places, list[Places]]] = []
        for part in parts:
            rows: dict[str, Places] = {}
            for i in part:
                rows.setdefault(models[i].provider.id, []).append(i)
            self._parts.append((part, list(rows.values())))

    def first(self, keep: int, checks: Sequence[Check]) -> tuple[Places, bool]:
        """Places among which the first ``keep`` of every turn are, and whether there are more."""
        found: Places = []
        for part, rows in self._parts:
            if len(found) > keep:
                break
            ring = passing([row[0] for row in rows], checks)
            done = set(ring)
            for row in rows:
                if row[0] not in done and len(row) > 1:
                    other = Steps(row[1:], checks).first()
                    if other is not None:
                        ring.append(other)
            left = max(0, keep - len(found) - len(ring))
            found += ring + _others(part, set(ring), left + 1, checks)
        return found, len(found) > keep


def _others(part: Places, ring: set[int], most: int, checks: Sequence[Check]) -> Places:
    """The first of a part that pass and are not in the ring."""
    found: Places = []
    steps = Steps(part, checks)
    while len(found) < most and (chunk := steps.next()) is not None:
        found += [i for i in chunk if i not in ring]
    return found[:most]
