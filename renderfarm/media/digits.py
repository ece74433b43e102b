"""Frame numbers drawn without a font, which a bare server may not have: five by seven pixels a sign."""

from __future__ import annotations

import numpy as np

from renderfarm.media.pictures import Floats

WIDTH_PX, HEIGHT_PX = 5, 7
#: Rows from the top, ``#`` is ink.
_SIGNS = {
    "0": (" ### ", "#   #", "#  ##", "# # #", "##  #", "#   #", " ### "),
    "1": ("  #  ", " ##  ", "  #  ", "  #  ", "  #  ", "  #  ", " ### "),
    "2": (" ### ", "#   #", "    #", "   # ", "  #  ", " #   ", "#####"),
    "3": ("#####", "   # ", "  #  ", "   # ", "    #", "#   #", " ### "),
    "4": ("   # ", "  ## ", " # # ", "#  # ", "#####", "   # ", "   # "),
    "5": ("#####", "#    ", "#### ", "    #", "    #", "#   #", " ### "),
    "6": ("  ## ", " #   ", "#    ", "#### ", "#   #", "#   #", " ### "),
    "7": ("#####", "    #", "   # ", "  #  ", " #   ", " #   ", " #   "),
    "8": (" ### ", "#   #", "#   #", " ### ", "#   #", "#   #", " ### "),
    "9": (" ### ", "#   #", "#   #", " ####", "    #", "   # ", " ##  "),
    "-": ("     ", "     ", "     ", "#####", "     ", "     ", "     "),
}


def drawn_number(number: int, scale: int) -> Floats:
    """Return a whole number as ink, 1 on 0, shape (7 * scale, (6 * signs - 1) * scale)."""
    gap = np.zeros((HEIGHT_PX, 1), np.float32)
    columns: list[Floats] = []
    for sign in str(number):
        columns += [np.array([[mark == "#" for mark in row] for row in _SIGNS[sign]], np.float32), gap]
    return np.asarray(np.kron(np.hstack(columns[:-1]), np.ones((scale, scale))), np.float32)
