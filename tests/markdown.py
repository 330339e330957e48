"""What the generated parts of the docs' pages are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["line", "replace_between"]


def line(cells: Sequence[str]) -> str:
    """Return a line of a table."""
    return f"| {' | '.join(cells)} |"


def replace_between(page: str, begin: str, end: str, block: str) -> str:
    """Return a page with `block` between two markers, in place of what was there.

    Raises:
        ValueError: it lacks one of them.
    """
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        msg = f"the page lacks its markers: there is no {begin!r} with a {end!r} behind it"
        raise ValueError(msg)
    return f"{before}{begin}\n{block}\n{end}{after}"
