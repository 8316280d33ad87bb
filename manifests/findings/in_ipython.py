"""How IPython and Jupyter show our exceptions: the lines of the caller, then the findings."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType
from typing import Any

_INNER = (__name__.partition(".")[0], "IPython", "ipykernel", "contextlib")
"""Packages whose frames say nothing to the person who wrote the cell."""


def traceback_lines(error: BaseException) -> list[str]:
    """The traceback of ``error`` without frames of ours, in the style that IPython is set to.

    What another library raised first is left out as well. After ``%xmode Verbose`` everything is
    shown.
    """
    shell = _shell()
    style = getattr(shell, "InteractiveTB", None)
    if style is not None and style.mode == "Verbose":
        return style.structured_traceback(type(error), error, error.__traceback__, tb_offset=1)
    frames = outer_frames(error.__traceback__)
    alone = _alone(error)
    if style is not None:
        return style.structured_traceback(type(alone), alone, frames, tb_offset=0)
    return traceback.format_exception(type(alone), alone, frames)


def outer_frames(frames: TracebackType | None) -> TracebackType | None:
    """``frames`` without those of this package and of IPython; all of them, if none is left."""
    kept: list[TracebackType] = []
    here = frames
    while here is not None:
        name = here.tb_frame.f_globals.get("__name__", "")
        if name.partition(".")[0] not in _INNER:
            kept.append(here)
        here = here.tb_next
    outer: TracebackType | None = None
    for one in reversed(kept):
        outer = TracebackType(outer, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return frames if outer is None else outer


def _alone(error: BaseException) -> BaseException:
    """The same error without the exception that caused it."""
    made, arguments = error.__reduce__()[:2]  # type: ignore[misc]
    alone: BaseException = made(*arguments)  # type: ignore[operator]
    for note in getattr(error, "__notes__", ()):
        alone.add_note(note)  # type: ignore[attr-defined]
    return alone


def _shell() -> Any:
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()  # None outside of its shell
