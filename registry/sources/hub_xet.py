"""Downloads over Xet, the Hub's storage of large files in chunks, which only its own client
(``hf_xet``) can read. It is used if it is installed, and watched from outside: if it fails or is
too slow, the same file comes over HTTP."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .folder import OnBytes
from .hub_http import CLIENT
from .pace import Pace, SlowError
from .relay import AbandonedError, relayed

_log = logging.getLogger(__name__)
_CLEANING = 1.0
"""Seconds that an aborted client is given to remove its unfinished file."""


def is_offered(url: str, endpoint: str, token: str | bool | None, size: int, wait: float) -> bool:
    """Whether the Hub offers this file of ``size`` bytes over Xet, and its client is installed."""
    from huggingface_hub import constants, get_hf_file_metadata

    if getattr(constants, "HF_HUB_DISABLE_XET", False) or find_spec("hf_xet") is None:
        return False
    try:
        metadata = get_hf_file_metadata(url, token=token, timeout=wait, endpoint=endpoint)
    except Exception as error:  # HTTP will fail too, with a message of ours
        _log.debug("no metadata of %s: %s", url, type(error).__name__)
        return False
    return metadata.xet_file_data is not None and metadata.size == size


def download(arguments: dict[str, Any], pace: Pace, size: int, on_bytes: OnBytes) -> Path | None:
    """Where the client's ``hf_hub_download`` put the file, or ``None`` if it fails, writes more
    than ``size`` bytes or is slower than ``pace``."""
    from huggingface_hub import hf_hub_download

    ended = threading.Event()

    def produce(put: Callable[[tuple[int, int] | str], None]) -> None:
        try:
            put(hf_hub_download(**arguments, **CLIENT, tqdm_class=_progress(put)))
        finally:
            ended.set()

    written, place = 0, None
    try:
        with closing(relayed(produce, _weight, pace)) as arriving:
            for item in arriving:
                if isinstance(item, str):
                    place = Path(item)
                    continue
                count = 0 if item is None else item[0]
                written += count
                if written > size:
                    _abort()
                    return None
                on_bytes(count)
    except SlowError:
        _abort()
        return None
    except Exception as error:
        _log.debug("Xet failed: %s", error)
        return None
    except BaseException:  # Ctrl-C
        _abort()
        ended.wait(_CLEANING)  # a process that ends at once would leave the client's file
        raise
    return place


class CountedOnce:
    """Reports each byte of a file once, although HTTP sends again what Xet sent before."""

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self._on_bytes: OnBytes | None = on_bytes
        self._reported: int = 0
        self._again: int = 0

    def __call__(self, count: int) -> None:
        new = max(count - self._again, 0)
        self._again -= count - new
        self._reported += new
        if self._on_bytes is not None:
            self._on_bytes(new)

    def restart(self) -> None:
        self._again = self._reported


def _weight(item: tuple[int, int] | str) -> int:
    return 0 if isinstance(item, str) else max(item)


def _progress(put: Callable[[tuple[int, int] | str], None]) -> type[Any]:
    """A progress bar that draws nothing and reports the bytes written and transferred."""
    from tqdm.std import tqdm

    class Progress(tqdm):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            with suppress(AbandonedError):  # not into the client's threads
                put((max(int(n or 0), 0), 0))

        def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
            return

        def update_transfer(self, n: float) -> None:
            with suppress(AbandonedError):
                put((0, max(int(n), 0)))

    return Progress


def _abort() -> None:
    """End the client's own threads. This ends all Xet downloads of this process; ours continue
    over HTTP."""
    with suppress(Exception):
        from huggingface_hub.utils._xet import abort_xet_session

        abort_xet_session()
