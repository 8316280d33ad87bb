"""Do an adapter's tensors match PEFT's layers? Checks without PEFT cannot decide that.

PEFT's own layers decide, made at modules of the base's sizes but without their weights.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from torch import nn

from ....manifests.findings import fit as codes
from ....manifests.findings.errors import AttachError
from ....manifests.findings.finding import Finding, Severity, Where
from ....registry.access.access import AskPeft
from ....registry.files.facts import AdapterFacts, AdapterPlan, BaseFacts, TensorInfo
from ....registry.methods.peft_table import PEFT_TABLE
from .layers import Values
from .make_layers import make_shell, misfits


def settle(
    plan: AdapterPlan,
    infos: Mapping[str, TensorInfo],
    modules: Mapping[str, nn.Module],
    where: Where,
) -> list[Finding] | None:
    """PEFT's problems with the adapter at these live modules, which may be on the ``meta`` device;
    ``None`` where it needs the base's weights to decide. Reads no weight."""
    peft = plan.peft
    if peft is None or PEFT_TABLE[peft.method].needs_weights:
        return None
    if any(live not in modules for live in peft.authors):
        return None
    for values in (Values.NONE, Values.ZERO):
        try:
            shell = make_shell(peft, modules, where, values=values)
            return misfits(shell, plan, infos, where)
        except AttachError as error:
            if not _needs_values(error.__cause__):
                return list(error.findings)
        except Exception as error:
            if not _needs_values(error):
                raise
    return None


def settled(
    findings: Iterable[Finding],
    plan: AdapterPlan | None,
    infos: Mapping[str, TensorInfo],
    modules: Mapping[str, nn.Module],
    where: Where,
) -> list[Finding]:
    """The findings on an adapter before it is attached to a model with these modules: an unchecked
    fit is checked now, or when PEFT's layers are made."""
    found = list(findings)
    rest = [f for f in found if f.code != codes.PEFT_SHAPES_UNCHECKED.id]
    if plan is None or len(rest) == len(found):
        return found
    if any(f.severity is Severity.ERROR for f in rest):
        return rest
    return [*rest, *(settle(plan, infos, modules, where) or ())]


def peft_asker(modules: Mapping[str, nn.Module] | None = None, *, later: bool = False) -> AskPeft:
    """A function that checks adapters of PEFT's methods for a resolution: with PEFT's layers, at
    the live ``modules`` if given, else at those of the base's ``config.json``.

    With ``later``, a check that needs the base's weights passes: PEFT's layers check it when they
    are attached, and nobody has to accept it before.
    """
    known: list[tuple[BaseFacts, Mapping[str, nn.Module]]] = []
    lock = threading.Lock()

    def modules_of(base: BaseFacts | None) -> Mapping[str, nn.Module]:
        if modules is not None or base is None:
            return modules or {}
        with lock:
            if not known or known[0][0] is not base:
                from ...base.meta_layout import model_of_config  # imports transformers

                model = model_of_config(base.loaded_config)
                found = {} if model is None else dict(model.named_modules(remove_duplicate=False))
                known[:] = [(base, found)]
            return known[0][1]

    def ask(
        base: BaseFacts | None, adapter: AdapterFacts, plan: AdapterPlan, where: Where
    ) -> list[Finding] | None:
        findings = settle(plan, adapter.header.tensors, modules_of(base), where)
        return [] if findings is None and later else findings

    return ask


def _needs_values(error: BaseException | None) -> bool:
    """Whether torch failed because the tensors have no values."""
    return isinstance(error, NotImplementedError) or (
        isinstance(error, RuntimeError) and "meta" in str(error).lower()
    )
