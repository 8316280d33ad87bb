"""``device_map``: the words, devices and mappings that transformers and accelerate accept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Maps that accelerate computes."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu|npu|hpu|mlu|musa|sdaa|xla|meta)(:[0-9]{1,4})?\Z", re.ASCII)


def bad_devices(
    device_map: str | Mapping[str, str | int] | None,
) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Each invalid device in ``device_map``: (path, found, expected).

    A mapping goes from modules (``""`` is the complete model) to devices, numbers of GPUs or
    ``disk``.
    """
    if device_map is None:
        return
    if isinstance(device_map, str):
        if device_map not in MAPS and not _DEVICE.match(device_map):
            yield (), device_map, ", ".join(MAPS) + ", cpu, cuda:0 or a mapping"
        return
    if not device_map:
        yield (), "an empty mapping", '{"": 0} or {module: device}'
    for module, device in device_map.items():
        if isinstance(device, int):
            good, found = 0 <= device < 10_000, str(device)
        else:
            good = device == "disk" or _DEVICE.match(device) is not None
            found = f'"{device}"' if device.isdigit() else device
        if not good:
            yield (module,), found, "cpu, disk, cuda:0 or the number of a GPU"
