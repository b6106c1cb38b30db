"""Figures: one look for all of them, and files that depend on nothing but what is drawn.

matplotlib is imported when something is drawn, and not before; the extra ``zellige[report]`` brings it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zellige.errors import ZelligeError

STYLE: Any = {  # Any: what of it matplotlib knows is a matter of its version
    "svg.hashsalt": "zellige", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#e6e6e6", "axes.axisbelow": True, "legend.frameon": False,
    "legend.fontsize": 8, "figure.constrained_layout.use": True,
}  # fmt: skip
COLOURS = ("#1d6996", "#cc503e", "#38a6a5", "#edad08", "#5f4690", "#73af48", "#94346e")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SIZE = (6.4, 3.8)
FORMATS = (".svg", ".png", ".pdf")


def look(index: int) -> dict[str, Any]:
    """Colour and marker of a series: no two of the first 49 are alike.

    >>> look(0), look(8)
    ({'color': '#1d6996', 'marker': 'o'}, {'color': '#cc503e', 'marker': '^'})
    """
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[(index + index // len(COLOURS)) % len(MARKERS)]}


def figure_file(path: str | os.PathLike[str]) -> Path:
    """The path of a figure.

    Raises:
        ZelligeError: its ending is no format that is written here, there is no such directory, or matplotlib is not installed.
    """
    file = Path(path)
    if file.suffix not in FORMATS:
        raise ZelligeError(f"a figure's name must end in {', '.join(FORMATS)}; got {file}")
    if not file.absolute().parent.is_dir():
        raise ZelligeError(f"can't save to {file}: there is no directory {file.parent}")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError as error:
        raise ZelligeError("figures are drawn with matplotlib, which is not installed: pip install 'zellige[report]'") from error
    return file


def save_figure(
    path: str | os.PathLike[str], draw: Callable[[Any], None], panels: int = 1, size: tuple[float, float] = SIZE
) -> Path:
    """Write a figure: ``draw`` gets the axes, or an array of them where there are several ``panels`` side by side.

    Raises what ``figure_file`` raises.
    """
    file = figure_file(path)
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=size)
        FigureCanvasAgg(figure)
        draw(figure.subplots(1, panels))
        figure.savefig(file, dpi=200, metadata={"Date": None} if file.suffix == ".svg" else None)
    return file
