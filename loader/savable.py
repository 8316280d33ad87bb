"""How the adapters of a model leave it: to a folder, to the Hub, or to a registry."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import torch

from ..manifests.findings.finding import Where
from .model.stand_in import StandIn

if TYPE_CHECKING:
    from ..registry.catalogue.publish import Published


class SavableModel(StandIn):
    """The part of :class:`AdaptedModel` that saves, uploads and publishes adapters."""

    def save_adapter(self, save_directory: str | os.PathLike[str], adapter_name: str) -> None:
        """Write an adapter in PEFT's format; PEFT can load it, and it is a ``source``.

        Writes ``adapter_config.json``, and ``adapter_model.safetensors`` in the adapter's dtype
        with PEFT's names and the base's fingerprint in its metadata. If the process is killed, the
        folder has the old files, the new ones, or a mix that loading refuses (AD398).

        Args:
            save_directory: The folder.
            adapter_name: The adapter.

        Raises:
            RoutingError: An unknown name, or merged adapters.
            AttachError: The adapter cannot be saved, or the folder cannot be written.
        """
        from .lifecycle.save_adapter import save_adapter

        save_adapter(self._host, save_directory, adapter_name)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        is_main_process: bool = True,
        state_dict: Mapping[str, torch.Tensor] | None = None,
        selected_adapters: Iterable[str] | None = None,
        safe_serialization: bool = True,
        save_embedding_layers: bool | str = "auto",
        path_initial_model_for_weight_conversion: str | None = None,
        **options: Any,
    ) -> None:
        """Write all adapters and ``adapterdock.yaml``; ``adapterdock.load`` loads them again.

        The manifest declares adapters, compositions, rules, the default, and the base by source and
        fingerprint. A single trained adapter is in the folder itself, the others are in folders
        with their names. During training, ``model.safetensors`` also has the trained tensors by
        their live names: ``Trainer`` saves its checkpoints with this method and resumes from that
        file. What the manifest cannot express gives a warning. While adapters are merged, writes
        the merged base as a plain model. Options have to be named, since PEFT and transformers have
        them in different orders.

        Args:
            save_directory: The folder.
            is_main_process: Whether this process writes.
            state_dict: Tensors by live name to write instead of the model's own.
            selected_adapters: Write only these adapters, and no manifest, as PEFT does: each in a
                folder with its name, ``default`` in the folder itself.
            safe_serialization: Must be ``True``: only safetensors files are written.
            save_embedding_layers: ``True`` is refused: train the embedding (``modules_to_save``)
                to have it in the file.
            path_initial_model_for_weight_conversion: Must be ``None``.
            **options: Other options of PEFT's and transformers', which are refused by name.

        Raises:
            RoutingError: Unknown names, or ``selected_adapters`` while adapters are merged.
            AttachError: An adapter cannot be saved, or the folder cannot be written.
            UsageError: An option that is not supported.
        """
        from .lifecycle.from_pretrained import refuse_options
        from .lifecycle.hub_upload import selected_files
        from .lifecycle.save_adapter import write_files
        from .lifecycle.save_model import save_pretrained

        given = {
            "safe_serialization": not safe_serialization,
            "save_embedding_layers": save_embedding_layers is True,
            "path_initial_model_for_weight_conversion": path_initial_model_for_weight_conversion,
            **options,
        }
        refuse_options(Where(file="save_pretrained"), given)
        if not is_main_process:
            return
        with self._host.adapters.changing():
            if selected_adapters is not None:
                files = selected_files(self._host, list(selected_adapters), state_dict)
                write_files(save_directory, files)
            else:
                save_pretrained(self._host, save_directory, state_dict)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        selected_adapters: Iterable[str] | None = None,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        tags: Iterable[str] = (),
        **options: Any,
    ) -> str:
        """Upload adapters to the Hub in PEFT's format, with a model card, in one commit.

        The layout is that of ``save_pretrained(selected_adapters=...)``, which PEFT loads. The
        card's metadata has the base and ``base_model_relation: adapter``, so that the Hub shows the
        adapter under its base. The text and the other metadata of a card that is there already
        stay, and so do other files of the repository. Uploading the same again makes no commit.

        Args:
            repo_id: ``org/name``, or ``name`` for a repository of your own; made if there is none.
            selected_adapters: The adapters; by default all.
            commit_message: By default, what is uploaded.
            commit_description: More about it.
            private: Whether a new repository is private. One that exists stays as it is.
            token: The Hub's token; by default the one that huggingface_hub finds.
            revision: The branch, made if there is none; by default the main one.
            create_pr: Whether to open a pull request instead of writing to the branch. That needs
                no right to write.
            tags: Words for the card.
            **options: Other options, which are refused by name.

        Returns:
            The URL of the commit or the pull request.

        Raises:
            RoutingError: Unknown names, or merged adapters.
            AttachError: An adapter cannot be saved.
            SourceError, OfflineError: The upload failed; the repository's files are as before.
            UsageError: An option that is not supported, or an invalid ``repo_id``.
        """
        from .lifecycle.from_pretrained import refuse_options
        from .lifecycle.hub_upload import push_to_hub

        refuse_options(Where(file=f"push_to_hub({repo_id!r})"), options)
        return push_to_hub(
            self._host,
            repo_id,
            selected_adapters=None if selected_adapters is None else list(selected_adapters),
            commit_message=commit_message,
            commit_description=commit_description,
            private=private,
            token=token,
            revision=revision,
            create_pr=create_pr,
            tags=tags,
        )

    def publish(
        self,
        adapter_name: str,
        reference: str,
        *,
        registry: str | None = None,
        base: str | None = None,
        licence: str | None = None,
        owner: str | None = None,
        description: str | None = None,
        tags: Iterable[str] | None = None,
        metrics: Mapping[str, float] | None = None,
        provenance: Mapping[str, Any] | None = None,
        new_name: bool = False,
        dry_run: bool = False,
        sign: str | os.PathLike[str] | None = None,
        passphrase: str | bytes | None = None,
        public_key: str | os.PathLike[str] | None = None,
        offline: bool = False,
    ) -> Published | None:
        """Publish an adapter to a registry as one version, for good.

        What is published is what :meth:`save_adapter` writes now, so training is included. It is
        checked as by :func:`adapterdock.publish`, against the files of the model's base and under
        the policies of its set-up. The same content again succeeds.

        Args:
            adapter_name: The adapter.
            reference: ``REGISTRY/NAME@VERSION``.
            registry: The URL that ``REGISTRY`` means; by default, what the model's manifest says.
            base: The base's source; by default that of the model's manifest, else where
                transformers loaded it from, else what the adapter's config records.
            licence: Of the adapter. Like the next three, by default what the model's manifest says
                of an adapter with this name.
            owner: Who answers questions.
            description: For people.
            tags: Words for search.
            metrics: Finite numbers by name; promotions can require them.
            provenance: Where it comes from: ``data``, ``code`` (a commit), ``date``, ``parents``.
            new_name: Whether a new name may be nearly that of another adapter.
            dry_run: Checks everything, and writes nothing.
            sign: A private key that signs the entry, as for :func:`adapterdock.publish`; also the
                next two.
            passphrase: Of the key's file.
            public_key: The public key that belongs to it.
            offline: Use no network.

        Returns:
            What is published now; ``None`` with ``dry_run`` where nothing is yet.

        Raises:
            RoutingError: An unknown name, or merged adapters.
            AttachError: The adapter cannot be saved.
            UsageError, FitError, IntegrityError, SourceError, PolicyError, StoreError: As for
                :func:`adapterdock.publish`.
        """
        from .lifecycle.publish_adapter import publish_adapter

        return publish_adapter(
            self._host,
            adapter_name,
            reference,
            registry=registry,
            base=base,
            licence=licence,
            owner=owner,
            description=description,
            tags=tags,
            metrics=metrics,
            provenance=provenance,
            new_name=new_name,
            dry_run=dry_run,
            sign=sign,
            passphrase=passphrase,
            public_key=public_key,
            offline=offline,
        )
