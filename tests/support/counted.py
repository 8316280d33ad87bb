"""How often functions of the package are called, wherever they are imported."""

from __future__ import annotations

import functools
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest


def counted(monkeypatch: pytest.MonkeyPatch, *functions: Callable[..., Any]) -> Counter[str]:
    """Calls of these functions from now on, by name."""
    calls: Counter[str] = Counter()
    for function in functions:
        replaced = _counting(function, calls)
        for name, module in list(sys.modules.items()):
            if name.startswith("adapterdock."):
                for attribute, value in list(vars(module).items()):
                    if value is function:
                        monkeypatch.setattr(module, attribute, replaced)
    return calls


def _counting(function: Callable[..., Any], calls: Counter[str]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        calls[function.__name__] += 1
        return function(*args, **kwargs)

    return call
