"""The table of settings by door in docs/settings.md, as the code has it.

`python -m tests.docs.doors` writes it anew; a test compares it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.docs.pages import ROOT
from tests.markdown import line, replace_between
from ws_middleware.door_table import EVERYWHERE, TABLE
from ws_middleware.doors import Door, Who

if TYPE_CHECKING:
    from ws_middleware.doors import Cell

__all__ = ["PAGE", "render", "replaced"]

PAGE: Final = ROOT / "docs" / "settings.md"

BEGIN: Final = "<!-- from here on: python -m tests.docs.doors -->\n"
END: Final = "<!-- to here -->\n"

NOTES: Final = "Notes on doors"
HEADS: Final = {Door.WSGI: "WSGI (gunicorn)"}
ALIKE: Final = "alike"


def render() -> str:
    """Return the tables with what leads to them."""
    numbers: dict[str, int] = {}
    heads = ["setting", *(HEADS.get(door, door.value) for door in Door), "for a guard"]
    lines = [line(heads), line(["---"] * len(heads))]
    for setting, row in TABLE.items():
        cells = [_cell(row.cells[door], numbers) for door in Door]
        lines.append(line([f"`{setting}`", *cells, row.guard or ALIKE]))
    everywhere = ", ".join(f"`{name}`" for name in EVERYWHERE)
    notes = [line([str(number), note]) for note, number in numbers.items()]
    return "\n".join(
        [
            *lines,
            "",
            f"Behind every door alike: {everywhere}.",
            "",
            f"### {NOTES}",
            "",
            line(["", "what to know"]),
            line(["---", "---"]),
            *notes,
            "",
        ]
    )


def _cell(cell: Cell, numbers: dict[str, int]) -> str:
    if cell.who is Who.SERVERS:
        options = cell.option.split(" and ") if cell.option else []
        said = " and ".join(f"`{each}`" for each in options) or "fixed"
    else:
        said = cell.who.value
    if not cell.note:
        return said
    number = numbers.setdefault(cell.note, len(numbers) + 1)
    return f"{said} [{number}](#{NOTES.lower().replace(' ', '-')})"


def replaced(page: str) -> str:
    """Return a page with its table written anew.

    Raises:
        ValueError: it has no place for it.
    """
    return replace_between(page, BEGIN, END, render())


if __name__ == "__main__":
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
