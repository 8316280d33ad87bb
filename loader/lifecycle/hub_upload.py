"""``push_to_hub``: adapters in PEFT's format, with a model card, in one commit."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from ...manifests.findings.finding import Where
from ...registry.checks.recorded_base import is_hub_id, recorded_name
from ...registry.hub_upload import HubUpload, upload
from ...registry.model_card import card_of
from ..model.host import AdapterHost
from .save_adapter import files_of_adapter


def push_to_hub(
    host: AdapterHost,
    repo_id: str,
    *,
    selected_adapters: Collection[str] | None,
    commit_message: str | None,
    commit_description: str | None,
    private: bool | None,
    token: str | bool | None,
    revision: str | None,
    create_pr: bool,
    tags: Iterable[str],
) -> str:
    """See :meth:`AdaptedModel.push_to_hub`."""
    with host.adapters.changing():
        files = selected_files(host, selected_adapters)
        adapters = [host.adapters.known(name) for name in _names(host, selected_adapters)]
        configs = {_folder(adapter.name): adapter.config for adapter in adapters}
        base = host.live.hub_name
    recorded = [recorded_name(config) for config in configs.values()]
    base = base or next((one for one in recorded if one and is_hub_id(one)), None)
    wanted = HubUpload(
        repo_id,
        commit_message or f"Upload {', '.join(adapter.name for adapter in adapters)}",
        commit_description,
        private,
        token,
        revision,
        create_pr,
    )
    return upload(
        files,
        lambda name, before: card_of(name, configs, base, tags, before),
        wanted,
        Where(file=f"push_to_hub({repo_id!r})"),
        offline=host.session.access.offline,
    )


def selected_files(
    host: AdapterHost,
    selected: Collection[str] | None,
    state: Mapping[str, torch.Tensor] | None = None,
) -> dict[str, bytes]:
    """The files of these adapters (by default of all), in the layout of PEFT's ``save_pretrained``:
    each in a folder with its name, ``default`` in the folder itself. ``state`` is as for
    :func:`files_of_adapter`."""
    with host.adapters.changing():
        names = _names(host, selected)
        host.state.check_unmerged("Cannot save adapters with the base's fingerprint")
        files: dict[str, bytes] = {}
        for name in names:
            own = files_of_adapter(host, host.adapters.known(name), state)
            inside = _folder(name)
            files |= {f"{inside}/{file}" if inside else file: own[file] for file in own}
        return files


def _names(host: AdapterHost, selected: Collection[str] | None) -> list[str]:
    if selected is not None:
        return [host.adapters.known(name).name for name in dict.fromkeys(selected)]
    return [name for name in host.adapters.by_name if name not in host.state.compositions]


def _folder(name: str) -> str:
    return "" if name == "default" else name
