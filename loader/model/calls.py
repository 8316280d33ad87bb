"""Running the base with the adapters that were chosen: forward, generate, and its other methods."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings.errors import RoutingError
from ..adapter.warning import never_fired, warn
from ..methods.prompts.virtual_tokens import prompt_of
from ..routing.activation import invocations, of_forward, of_prompt
from ..routing.kv_cache import check_cache, mark_cache
from ..routing.routing import CURRENT, Call, Routing, run_with
from ..routing.selection import Selection
from ..sites.checkpointing import carry, checkpointable
from ..sites.compiled import CompiledBase
from .base_view import view_of
from .choice import UNSAID, Choosing, Unsaid
from .exchanged import with_exchanged

_EXPORTING: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
"""Since torch 2.7."""


def _let_caches_be_exported() -> None:
    """Tell ``torch.export`` of the cache that a causal model returns beside its logits, as
    transformers does before its own exports."""
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()


class Calling(Choosing):
    """The part of an adapted model that runs the base. A routing is resolved once per ``forward``
    or ``generate``."""

    _view: nn.Module | None
    _checkpointable: tuple[nn.Module, ...] | None

    def __init__(self, base: nn.Module) -> None:
        super().__init__(base)
        self.__dict__.update(_view=None, _checkpointable=None)

    def forward(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's forward with the active adapters, with those that ``adapter`` names, or with
        those that ``adapter_names`` names for each row of the batch (an adapter, a composition,
        ``"__base__"``)."""
        if _EXPORTING():
            _let_caches_be_exported()
        call = threading.Lock()
        try:
            with call:
                routing = self._take(call, adapter, adapter_names)
                gradients = torch.is_grad_enabled() and bool(routing.terms)
                if gradients and self._base.training:
                    carry(self._checkpointed())
                out = self._enter(
                    routing, self._base, args, kwargs, inside=True, gradients=gradients
                )
        finally:
            self._attachments.let_go(call)
        self._note_use(routing)
        return out

    def generate(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's ``generate``, all of it with the adapters that were active at its start, with
        those that ``adapter`` names, or with those that ``adapter_names`` names for each prompt
        (shared by its beams and returned sequences)."""
        generate = getattr(self._seen(), "generate", None)
        if generate is None:
            name = type(self._base).__name__
            raise RoutingError(codes.CANNOT_GENERATE.finding(f"a {name} cannot generate"))
        call = threading.Lock()
        try:
            with call:
                copies = _copies_of_a_row(self._base, kwargs)
                routing = self._take(call, adapter, adapter_names, copies)
                if (prompt := prompt_of(routing.terms)) is not None:
                    generate = _with_prompt(prompt.generate, self._base, generate)
                if invocations(routing.terms):
                    generate = _from_invocations(generate)
                out = self._enter(routing, generate, args, kwargs, inside=False)
        finally:
            self._attachments.let_go(call)
        self._note_use(routing)
        return out

    def _enter(
        self,
        routing: Routing,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        inside: bool,
        gradients: bool = False,
    ) -> Any:
        """Run ``function`` with a routing that was taken."""
        self._check_alive()
        if self._tree.exchanged:
            return self._with_exchanged(routing, function, args, kwargs, inside, gradients)
        return self._run(routing, function, args, kwargs, inside, gradients)

    def _with_exchanged(
        self,
        routing: Routing,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inside: bool,
        gradients: bool,
    ) -> Any:
        """The same, where ``functional_call`` or ``torch.export`` has exchanged parameters."""
        modules = self._live.modules.by_name
        exchanged = self._tree.exchanged
        if self._compiled is not None:
            raise RoutingError(codes.NOT_EXCHANGED.finding("the base is compiled"))
        with with_exchanged(routing, exchanged, self._attachments, modules) as other:
            return self._run(other, function, args, kwargs, inside, gradients)

    def _run(
        self,
        routing: Routing,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inside: bool,
        gradients: bool,
    ) -> Any:
        rows = routing.rows
        if inside and function is self._base and self._compiled is not None:
            return self._compiled_call(routing, args, kwargs)
        repeat = rows.enter(self._owner, self._base, args, kwargs) if rows is not None else 1
        begins = of_forward(routing.terms, None, args, kwargs) if inside else None
        call = Call(
            self._owner, routing.terms, inside, gradients, False, rows, repeat, None, begins
        )
        if inside and (prompt := prompt_of(routing.terms)) is not None:
            function = _with_prompt(prompt.call, self._base, False)
        return run_with(call, function, args, kwargs)

    def _enter_base(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The base's forward on behalf of a method of the base that is running through us."""
        call = CURRENT.get()
        if call is None or call.owner is not self._owner:
            return self.forward(*args, **kwargs)
        if self._compiled is not None:
            return self._compiled_call(Routing(call.terms, call.rows), args, kwargs)
        rows = call.rows
        repeat = rows.enter(self._owner, self._base, args, kwargs) if rows is not None else 1
        entered = dataclasses.replace(
            call,
            inside=True,
            gradients=torch.is_grad_enabled(),
            repeat=repeat,
            activation=of_forward(call.terms, call.activation, args, kwargs),
        )
        base: Callable[..., Any] = self._base
        if (prompt := prompt_of(call.terms)) is not None:
            base = _with_prompt(prompt.call, self._base, True)
        return run_with(entered, base, args, kwargs)

    def compile(self, *, max_rank: int | None = None, **options: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Compile the base for calls through this wrapper (``options`` are ``torch.compile``'s).

        Adapters, compositions and weights then change without compiling again, as long as their
        ranks add up to at most ``max_rank`` (the largest attached, if not given) and they act on
        modules that are adapted now. Calls run one at a time. Raises :class:`RoutingError` for
        adapters that are more than low-rank factors at linear modules.
        """
        with self.changing(), self._attachments.lock:
            largest = max((a.rank for a in self._adapters.values()), default=0)
            sites = {n: site for n, site in self._attachments.outputs.items() if site.factors}
            if not sites:
                raise RoutingError(codes.NOT_COMPILED_FOR.finding("no adapter is attached yet"))
            self.__dict__["_compiled"] = CompiledBase(
                self._attachments.natural_forward,
                sites,
                [*self._attachments.wholes, *self._attachments.weights],
                max_rank or largest,
                options,
            )
            self._attachments.forget_compiled(still=sites.values())

    def _compiled_call(
        self, routing: Routing, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        compiled = self._compiled
        assert compiled is not None
        if routing.rows is not None:
            raise RoutingError(
                codes.NOT_COMPILED_FOR.finding("the rows of a batch cannot have adapters each")
            )
        call = Call(self._owner, routing.terms)
        check_cache(call, kwargs)
        out = compiled(routing.terms, self._attachments.outputs, args, kwargs)
        mark_cache(call, out)
        for adapter, _ in routing.terms:
            adapter.unfired.clear()  # the graph holds every site
        return out

    def _run_on_base(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        gradients = torch.is_grad_enabled()
        method = getattr(self._seen(), name)
        call = threading.Lock()
        try:
            with call:
                routing = self._take(call, UNSAID)
                out = self._enter(routing, method, args, kwargs, inside=False, gradients=gradients)
        finally:
            self._attachments.let_go(call)
        return self._stepwise(routing, out) if inspect.isgenerator(out) else out

    def _stepwise(self, routing: Routing, steps: Generator[Any, Any, Any]) -> Iterator[Any]:
        """A generator of the base's: its body runs later, each step with the same routing."""
        end = object()
        gradients = torch.is_grad_enabled()
        while True:
            call = threading.Lock()
            try:
                with call:
                    self._held(call, lambda: routing)
                    given = (steps, end)
                    step = self._enter(routing, next, given, {}, inside=False, gradients=gradients)
            finally:
                self._attachments.let_go(call)
            if step is end:
                return
            yield step

    def _seen(self) -> nn.Module:
        if self._view is None:
            self.__dict__["_view"] = view_of(self._base, self._enter_base)
        return cast(nn.Module, self._view)

    def _checkpointed(self) -> tuple[nn.Module, ...]:
        if self._checkpointable is None:
            self.__dict__["_checkpointable"] = checkpointable(self._base)
        return cast("tuple[nn.Module, ...]", self._checkpointable)

    def _note_use(self, routing: Routing) -> None:
        for adapter, _ in routing.terms:
            adapter.used = True
            if adapter.unfired and not adapter.reported:
                adapter.reported = True
                if finding := never_fired(adapter):
                    warn(finding)


def _with_prompt(act: Callable[..., Any], *given: Any) -> Callable[..., Any]:
    """``act`` in the place of the base's forward or ``generate``."""
    return lambda *args, **kwargs: act(*given, args, kwargs)


def _from_invocations(generate: Callable[..., Any]) -> Callable[..., Any]:
    """``generate`` in which aLoRAs begin where the prompt says, and nowhere else."""

    def run(*args: Any, **kwargs: Any) -> Any:
        call = CURRENT.get()
        assert call is not None
        begins = of_prompt(call.terms, args, kwargs)
        return run_with(dataclasses.replace(call, activation=begins), generate, args, kwargs)

    return run


def _copies_of_a_row(base: nn.Module, kwargs: Mapping[str, Any]) -> int:
    """How often ``generate`` repeats each row: beams, or returned sequences."""
    config = kwargs.get("generation_config") or getattr(base, "generation_config", None)
    wanted = (
        kwargs.get(n) or getattr(config, n, None) for n in ("num_beams", "num_return_sequences")
    )
    return max((int(number) for number in wanted if number), default=1)
