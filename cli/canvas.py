"""A plot in Braille dots, two columns and four rows of them in a cell."""

from rich.text import Text

# Bits of the eight dots of U+2800 by row and column.
_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_EMPTY = 0x2800


class Canvas:
    """`width` x `height` cells; what is drawn later covers, cell by cell, what was drawn before in another style."""

    def __init__(self, width: int, height: int) -> None:
        self.columns = 2 * width
        self.rows = 4 * height
        self._cells: list[list[tuple[int, str]]] = [[(0, "")] * width for _ in range(height)]

    def dot(self, column: int, row: int, style: str) -> None:
        """Set one dot; row 0 is the lowest."""
        upside = self.rows - 1 - row
        line, cell = self._cells[upside // 4], column // 2
        bits, before = line[cell]
        line[cell] = (bits if before == style else 0) | _BITS[upside % 4][column % 2], style

    def mark(self, column: int, row: int, sign: str, style: str) -> None:
        """Put a character, rather than dots, into a cell."""
        self._cells[(self.rows - 1 - row) // 4][column // 2] = ord(sign), style

    def lines(self) -> list[Text]:
        """From the top."""
        return [Text.assemble(*(_cell(*cell) for cell in line), no_wrap=True, end="") for line in self._cells]


def _cell(bits: int, style: str) -> tuple[str, str]:
    if not bits:
        return " ", ""
    return chr(bits if bits > 0xFF else _EMPTY | bits), style
