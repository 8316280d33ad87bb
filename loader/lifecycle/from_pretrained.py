"""``AdaptedModel.from_pretrained``: one adapter on a loaded base, with PEFT's arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ...manifests.findings import usage as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding, Where
from ...registry.checks.recorded_base import is_hub_id
from ...registry.files.names import ADAPTER_CONFIG, ADAPTER_WEIGHTS

_WHERE = Where(file="from_pretrained")

REFUSED: Mapping[str, str] = {
    "ephemeral_gpu_offload": "Leave it out: a weight that is offloaded is read where it is needed.",
    "key_mapping": "Leave it out: names of other versions of PEFT and transformers are recognised. "
    "For others, rename the tensors in the file.",
    "torch_device": "Leave it out: an adapter is put on the device of the modules that it acts on.",
    "cache_dir": "Set ADAPTERDOCK_CACHE to the folder of the cache.",
    "use_auth_token": "Pass it as token=.",
    "force_download": "Leave it out: a file whose content has changed is fetched again.",
    "proxies": "Set HTTPS_PROXY.",
    "use_safetensors": "Leave it out: adapters are read from safetensors files only.",
    "path_initial_model_for_weight_conversion": "Save with PEFT, which converts such an adapter.",
    "save_function": "Leave it out: is_main_process= says whether this process writes.",
    "max_shard_size": "Leave it out: an adapter is one file.",
    "variant": "Leave it out: an adapter's files have one name.",
    "push_to_hub": "Call `model.push_to_hub(repo_id)`.",
    "ignore_mismatched_sizes": "Leave it out: tensors of another size are an error.",
}
"""Options of PEFT's that are refused where they are set, and what to do."""


def refuse_options(where: Where, given: Mapping[str, Any]) -> None:
    """Raise :class:`UsageError` for options that are set and not supported."""
    findings = [
        _refused(name, where) for name, value in given.items() if value not in (None, False)
    ]
    if findings:
        raise UsageError(*findings)


def _refused(name: str, where: Where) -> Finding:
    known = REFUSED.get(name)
    kind = "Unsupported" if known else "Unknown"
    return codes.PEFT_OPTION.finding(f"{kind} option {name!r}", where, found=name, hint=known)


def source_text(
    model_id: str | os.PathLike[str], revision: str | None, subfolder: str | None
) -> str | os.PathLike[str]:
    """The source that PEFT's arguments mean: a local folder if there is one, a source as in a
    manifest, or a repository of the Hub. Raises :class:`UsageError` for a revision of
    anything else."""
    try:
        text = os.fspath(model_id)
    except TypeError:
        text = model_id
    if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UsageError(
            codes.PEFT_OPTION.finding(
                f"model_id is a {type(model_id).__name__}",
                _WHERE,
                expected="a folder, an id on the Hub, or a source",
                hint="Pass the adapter's folder, or its id on the Hub.",
            )
        )
    inside = (subfolder or "").strip("/")
    at = f"@{quote(revision, safe='')}" if revision else ""  # a branch may have a slash
    below = f"/{inside}" if inside else ""
    if text.startswith("hf://") or (is_hub_id(text) and not Path(text).exists()):
        return f"hf://{text.removeprefix('hf://')}{at}{below}"
    if at or ("://" in text and below):
        raise UsageError(
            codes.PEFT_OPTION.finding(
                "revision= and subfolder= are for repositories of the Hub",
                _WHERE,
                found=text,
                hint="Leave revision= out for a folder; write both into any other source.",
            )
        )
    return text if "://" in text else Path(text).expanduser() / inside


def with_config(source: str | os.PathLike[str], config: Any) -> dict[str, Any]:
    """Arguments of ``load_adapter`` for the weights of a local folder with another config."""
    text = os.fspath(source)
    weights = Path(text) / ADAPTER_WEIGHTS
    if "://" in text or not weights.is_file():
        raise UsageError(
            codes.PEFT_OPTION.finding(
                "config= needs a local folder with the weights",
                _WHERE,
                found=text,
                expected=f"a folder with {ADAPTER_WEIGHTS}",
                hint=f"Download the adapter and change its {ADAPTER_CONFIG}.",
            )
        )
    return {"source": None, "peft_config": config, "adapter_state_dict": weights.read_bytes()}
