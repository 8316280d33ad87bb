"""The base that an adapter was saved on, written into the adapter's own file.

In the metadata of ``adapter_model.safetensors`` (``BASE_RECORD``): the JSON of a ``Fingerprint``,
without the levels that are not known. PEFT and other readers of the format ignore it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from ...manifests.language.schema import Fingerprint
from ..files.facts import BASE_RECORD
from .fingerprint import Measured


def written(fingerprint: Fingerprint) -> str:
    """The record's text: sorted and compact, the same for the same base."""
    data = fingerprint.model_dump(mode="json", exclude_none=True)
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


def read(metadata: Mapping[str, str]) -> Fingerprint | None:
    """The record in this metadata, if there is one. Raises :class:`ValueError` for an invalid
    one."""
    text = metadata.get(BASE_RECORD)
    if text is None:
        return None
    data = json.loads(text)
    if not isinstance(data, dict) or not data:
        raise ValueError("not a JSON object")
    return Fingerprint.model_validate(data)


def recordable(measured: Measured, *, brings_modules: bool, brings_rows: bool) -> Fingerprint:
    """The levels of a measured base that a later check can compare.

    Levels in doubt are left out. So are the heads where the adapter replaces modules: a head that
    is trained with the adapter starts at random. An adapter with an embedding may have been saved
    on a base with added rows, so the structure and weights may not be those of its checkpoint.
    """
    left_out = {"tokenizer", "chat_template"}
    if "structure" in measured.doubts:
        left_out |= {"structure", "heads"}
    if "config" in measured.doubts:
        left_out |= {"config"}
    if "weights" in measured.doubts:
        left_out |= {"weights", "head_weights"}
    if brings_modules:
        left_out |= {"heads", "head_weights"}
    if brings_rows:
        left_out |= {"structure", "weights"}
    return measured.fingerprint.model_copy(update=dict.fromkeys(left_out))
