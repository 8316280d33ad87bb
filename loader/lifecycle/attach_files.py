"""Put an adapter's verified files onto a model, or in the place of one of its name."""

from __future__ import annotations

from ...manifests.findings.finding import Finding
from ..build.from_files import AdapterFiles
from ..model.attach import check_free, put_adapters
from ..model.compositions import made_again
from .deployed_model import DeployedModel


def attach_files(
    model: DeployedModel, files: AdapterFiles, *, replace: bool = False, lazy: bool = False
) -> list[Finding]:
    """Build an adapter (or, if ``lazy``, put that off) and put it on the model, in place of one of
    its name if it is to ``replace`` one; what is computed from that one is made again. Returns
    what is worth a warning. The model is as it was if anything raises."""
    with model.changing():
        check_free(model, files.name, replace, files.where)
        built, notes = files.put_off(model.live) if lazy else files.build(model.live)
        remade = made_again(model, [built], files.where) if replace else []
        put_adapters(model, [built, *remade], files.where)
    return notes
