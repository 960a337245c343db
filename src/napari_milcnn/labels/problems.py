"""A list of everything that is wrong with a table of labels, grouped by kind, for one message that can be read."""

from __future__ import annotations

_SPELLED_OUT = 5
"""Cases of one kind that are spelled out; the rest is counted."""


class Problems:
    """Collects problems by kind, in the order in which the kinds are first met."""

    def __init__(self) -> None:
        self._cases: dict[str, list[str]] = {}

    def add(self, kind: str, case: str = "") -> None:
        """Add one case, such as "line 3: 'a.tif'", of a kind that a sentence names; a kind may need no case."""
        self._cases.setdefault(kind, []).append(case)

    def __len__(self) -> int:
        return sum(map(len, self._cases.values()))

    def sentences(self) -> list[str]:
        """One line a kind, its first cases spelled out."""
        return [_sentence(kind, cases) for kind, cases in self._cases.items()]

    def message(self, what: str) -> str:
        """Everything as one text: "WHAT has 3 problems:" and a line for each kind."""
        count = f"{len(self)} problem{'s'[: len(self) > 1]}"
        return "\n- ".join([f"{what} has {count}:", *self.sentences()])


def _sentence(kind: str, cases: list[str]) -> str:
    said = [case for case in cases if case]
    if not said:
        return kind
    more = [f"and {len(said) - _SPELLED_OUT} more"] if len(said) > _SPELLED_OUT else []
    count = f" ({len(said)})" if len(said) > 1 else ""
    return f"{kind}{count}: {'; '.join([*said[:_SPELLED_OUT], *more])}"
