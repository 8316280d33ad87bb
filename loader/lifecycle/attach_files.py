"""Attaches an adapter's verified files to a model."""

from __future__ import annotations

from ...manifests.findings.finding import Finding
from ..build.from_files import AdapterFiles
from ..model.host import AdapterHost


def attach_files(
    host: AdapterHost, files: AdapterFiles, *, replace: bool = False, lazy: bool = False
) -> list[Finding]:
    """Build an adapter and put it on the model; if ``lazy``, its weights are read when first used.

    With ``replace``, it takes the place of the adapter of its name, and compositions that use that
    one are computed again. Returns warnings. If anything raises, the model is as before.
    """
    with host.adapters.changing():
        host.adapters.check_free(files.name, replace, files.where)
        built, notes = files.put_off(host.live) if lazy else files.build(host.live)
        remade = host.compositions.made_again([built], files.where) if replace else []
        host.adapters.put([built, *remade], files.where)
    return notes
