"""Put an adapter's verified files onto a model, or in the place of one of its name."""

from __future__ import annotations

from ...manifests.findings.finding import Finding
from ..build.from_files import AdapterFiles
from ..model.host import AdapterHost


def attach_files(
    host: AdapterHost, files: AdapterFiles, *, replace: bool = False, lazy: bool = False
) -> list[Finding]:
    """Build an adapter (or, if ``lazy``, put that off) and put it on the model, in place of one of
    its name if it is to ``replace`` one; what is computed from that one is made again. Returns
    what is worth a warning. The model is as it was if anything raises."""
    with host.adapters.changing():
        host.adapters.check_free(files.name, replace, files.where)
        built, notes = files.put_off(host.live) if lazy else files.build(host.live)
        remade = host.compositions.made_again([built], files.where) if replace else []
        host.adapters.put([built, *remade], files.where)
    return notes
