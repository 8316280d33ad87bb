"""Settling what a check without PEFT leaves open: would PEFT store these tensors?

Asked of PEFT's own layers, made at modules of the base's sizes but without their weights.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

from torch import nn

from ....manifests.findings import fit as codes
from ....manifests.findings.errors import AttachError
from ....manifests.findings.finding import Finding, Severity, Where
from ....registry.access import AskPeft
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
    """What PEFT has against the adapter at these live modules (which may be on the ``meta``
    device); ``None`` where it cannot tell without the base's weights. Reads no weight."""
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
    """The findings on an adapter that is about to be attached to a model with these modules: what
    was left open is settled now, or by PEFT's layers when they are made."""
    found = list(findings)
    rest = [f for f in found if f.code != codes.PEFT_SHAPES_UNCHECKED.id]
    if plan is None or len(rest) == len(found):
        return found
    if any(f.severity is Severity.ERROR for f in rest):
        return rest
    return [*rest, *(settle(plan, infos, modules, where) or ())]


def peft_asker(modules: Mapping[str, nn.Module] | None = None, *, later: bool = False) -> AskPeft:
    """Whom a resolution may ask about methods that only PEFT knows: PEFT's layers, at the live
    ``modules`` if there are some, else at those that the base's ``config.json`` makes.

    With ``later``, what cannot be told so is left to PEFT's layers when they are attached, and is
    nothing to accept before.
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
        said = settle(plan, adapter.header.tensors, modules_of(base), where)
        return [] if said is None and later else said

    return ask


def _needs_values(error: BaseException | None) -> bool:
    """PyTorch has no answer without values."""
    return isinstance(error, NotImplementedError) or (
        isinstance(error, RuntimeError) and "meta" in str(error).lower()
    )
