"""Compositions that only torch can compute, as adapters in PEFT's format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from ...manifests.findings import serving as codes
from ...manifests.findings.errors import UsageError
from ...manifests.findings.finding import Finding
from ...manifests.manifest import ManifestFile
from ...registry.access.session import Session

_NEEDED = ("torch", "transformers")


def require_torch(file: ManifestFile, refused: Iterable[tuple[str, Sequence[Finding]]]) -> None:
    """Raise :class:`UsageError` where torch is not installed, with the reasons why it is needed.

    Args:
        file: The manifest.
        refused: Compositions, with the findings that say why they were not joined without torch.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    wrong = [
        codes.EXPORT_COMPOSITION.finding(
            f"Cannot export composition {name!r} without torch",
            file.where(("compositions", name)),
            found="; ".join(one.message for one in findings),
            expected=f"a sum of plain LoRA adapters, or {' and '.join(missing)} installed",
            hint="Install them with `pip install 'adapterdock[torch]'`.",
        )
        for name, findings in refused
        if missing
    ]
    if wrong:
        raise UsageError(*wrong)


def compute(file: ManifestFile, session: Session, names: Iterable[str], folder: Path) -> None:
    """Load the manifest with torch, and write each composition into a new folder of its name.

    Raises:
        AdapterdockError: As ``load`` and ``save_composition`` raise it.
    """
    from ...loader.load import load

    model = load(
        file,
        accept=session.accepted,
        offline=session.access.offline,
        store=session.store,
        progress=session.progress,
    )
    for name in names:
        model.save_composition(folder / name, name)
