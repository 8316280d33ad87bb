"""Run the base with the active adapters: forward, generate, and its other methods."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import nn

from ...manifests.findings import loader as codes
from ...manifests.findings import training
from ...manifests.findings.errors import RoutingError
from ..adapter.warning import never_fired, warn
from ..methods.prompts.virtual_tokens import prompt_of
from ..routing.activation import invocations, of_forward, of_prompt
from ..routing.kv_cache import check_cache, mark_cache
from ..routing.routing import CURRENT, Call, Routing, run_with
from ..routing.row_probe import enter_rows
from ..routing.selection import Selection
from ..sites.checkpointing import carry, checkpointable
from ..sites.compiled import CompiledBase
from .adapter_set import AdapterSet
from .base_view import view_of
from .choice import UNSAID, Choice, Unsaid
from .exchanged import with_exchanged

_EXPORTING: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)
"""Since torch 2.7."""


def _let_caches_be_exported() -> None:
    """Register with ``torch.export`` the cache that a causal model returns besides its logits, as
    transformers does before its own exports."""
    from transformers.integrations.executorch import register_dynamic_cache_export_support

    register_dynamic_cache_export_support()


class Calls:
    """Runs the base with its active adapters, resolved once per ``forward`` or ``generate``."""

    def __init__(self, adapters: AdapterSet, choice: Choice) -> None:
        self._set = adapters
        self._choice = choice
        self._base = adapters.live.module
        self._attachments = adapters.attachments
        self._owner = adapters.attachments.owner
        self._noted_training = False

    def forward(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's forward with the active or the named adapters."""
        if _EXPORTING():
            _let_caches_be_exported()

        def enter(routing: Routing) -> Any:
            gradients = torch.is_grad_enabled() and bool(routing.terms)
            if gradients and self._base.training:
                carry(self._checkpointable)
                self._note_training()
            return self._enter(routing, self._base, args, kwargs, gradients)

        routing, out = self._with(lambda: self._choice.resolve(adapter, adapter_names), enter)
        _note_use(routing)
        return out

    def generate(
        self,
        *args: Any,
        adapter: Selection | Unsaid = UNSAID,
        adapter_names: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The base's ``generate`` with the adapters active at its start, or the named ones."""
        generate = getattr(self._view, "generate", None)
        if generate is None:
            name = type(self._base).__name__
            raise RoutingError(codes.CANNOT_GENERATE.finding(f"{name} has no generate method"))

        def enter(routing: Routing) -> Any:
            function = generate
            if (prompt := prompt_of(routing.terms)) is not None:
                function = _with_prompt(prompt.generate, self._base, function)
            if invocations(routing.terms):
                function = _from_invocations(function)
            return self._enter(routing, function, args, kwargs)

        copies = _copies_of_a_row(self._base, kwargs)
        routing, out = self._with(
            lambda: self._choice.resolve(adapter, adapter_names, copies), enter
        )
        _note_use(routing)
        return out

    def _with(
        self, resolve: Callable[[], Routing], enter: Callable[[Routing], Any]
    ) -> tuple[Routing, Any]:
        """Run ``enter`` with a routing whose adapters are loaded and held meanwhile, even if they
        are replaced or deleted."""
        call = threading.Lock()
        try:
            with call:
                routing = self._choice.hold(call, resolve)
                return routing, enter(routing)
        finally:
            self._attachments.let_go(call)

    def _enter(
        self,
        routing: Routing,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        gradients: bool = False,
    ) -> Any:
        """Run ``function`` with a routing; with other parameters if ``functional_call`` or
        ``torch.export`` has exchanged them."""
        self._set.state.check_alive()
        exchanged = self._set.tree.exchanged
        if not exchanged:
            return self._run(routing, function, args, kwargs, gradients)
        if self._set.state.compiled is not None:
            raise RoutingError(
                codes.NOT_EXCHANGED.finding("Cannot exchange the parameters: the base is compiled")
            )
        modules = self._set.live.modules.by_name
        with with_exchanged(routing, exchanged, self._attachments, modules) as other:
            return self._run(other, function, args, kwargs, gradients)

    def _run(
        self,
        routing: Routing,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        gradients: bool,
    ) -> Any:
        rows = routing.rows
        inside = function is self._base
        if inside and self._set.state.compiled is not None:
            return self._compiled_call(routing, args, kwargs)
        repeat = enter_rows(rows, self._owner, self._base, args, kwargs) if rows is not None else 1
        activation = of_forward(routing.terms, None, args, kwargs) if inside else None
        call = Call(
            self._owner, routing.terms, inside, gradients, False, rows, repeat, None, activation
        )
        if inside and (prompt := prompt_of(routing.terms)) is not None:
            function = _with_prompt(prompt.call, self._base, False)
        return run_with(call, function, args, kwargs)

    def _enter_base(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The base's forward, called by a method of the base that runs through the wrapper."""
        call = CURRENT.get()
        if call is None or call.owner is not self._owner:
            return self.forward(*args, **kwargs)
        if self._set.state.compiled is not None:
            return self._compiled_call(Routing(call.terms, call.rows), args, kwargs)
        rows = call.rows
        repeat = enter_rows(rows, self._owner, self._base, args, kwargs) if rows is not None else 1
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

    def compile(self, *, max_rank: int | None = None, **options: Any) -> None:
        """Compile the base for calls whose adapters' ranks add up to at most ``max_rank``."""
        with self._set.changing(), self._set.lock:
            largest = max((a.rank for a in self._attachments.adapters.values()), default=0)
            sites = {n: site for n, site in self._attachments.outputs.items() if site.factors}
            if not sites:
                raise RoutingError(codes.NOT_COMPILED_FOR.finding("No adapter is attached"))
            compiled = CompiledBase(
                self._attachments.natural_forward,
                sites,
                [*self._attachments.replaced, *self._attachments.weights],
                max_rank or largest,
                options,
            )
            self._set.say(compiled=compiled)
            self._attachments.forget_compiled(still=sites.values())

    def _compiled_call(
        self, routing: Routing, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        compiled = self._set.state.compiled
        assert compiled is not None
        if routing.rows is not None:
            raise RoutingError(
                codes.NOT_COMPILED_FOR.finding("Rows of a batch cannot have different adapters")
            )
        call = Call(self._owner, routing.terms)
        check_cache(call, kwargs)
        out = compiled(routing.terms, self._attachments.outputs, args, kwargs)
        mark_cache(call, out)
        for adapter, _ in routing.terms:
            adapter.unfired.clear()  # the graph holds every site
        return out

    def of_base(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the base's method ``name`` with the active adapters."""
        gradients = torch.is_grad_enabled()
        method = getattr(self._view, name)

        def enter(routing: Routing) -> Any:
            return self._enter(routing, method, args, kwargs, gradients)

        routing, out = self._with(self._choice.resolve, enter)
        return self._stepwise(routing, out) if inspect.isgenerator(out) else out

    def _stepwise(self, routing: Routing, steps: Generator[Any, Any, Any]) -> Iterator[Any]:
        """A generator of the base, whose body runs later: each step with the same routing."""
        end = object()
        gradients = torch.is_grad_enabled()

        def enter(routing: Routing) -> Any:
            return self._enter(routing, next, (steps, end), {}, gradients)

        while (step := self._with(lambda: routing, enter)[1]) is not end:
            yield step

    def _note_training(self) -> None:
        """Warn once that the base would be trained under adapters that are not trainable."""
        if self._noted_training or self._attachments.trains_adapters:
            return
        if torch.compiler.is_compiling():
            return
        trained = sum(p.numel() for p in self._base.parameters() if p.requires_grad)
        if trained:
            self._noted_training = True
            warn(
                training.BASE_TRAINED.finding(
                    "No adapter is trainable, so training changes the base",
                    found=f"{trained:,} parameters of the base have gradients",
                )
            )

    @cached_property
    def _view(self) -> nn.Module:
        return view_of(self._base, self._enter_base)

    @cached_property
    def _checkpointable(self) -> tuple[nn.Module, ...]:
        return checkpointable(self._base)


def _note_use(routing: Routing) -> None:
    for adapter, _ in routing.terms:
        adapter.used = True
        if adapter.unfired and not adapter.reported:
            adapter.reported = True
            if finding := never_fired(adapter):
                warn(finding)


def _with_prompt(act: Callable[..., Any], *first: Any) -> Callable[..., Any]:
    """``act`` with the signature of the base's forward or ``generate``."""
    return lambda *args, **kwargs: act(*first, args, kwargs)


def _from_invocations(generate: Callable[..., Any]) -> Callable[..., Any]:
    """``generate`` in which aLoRAs start to act at their invocation in the prompt."""

    def run(*args: Any, **kwargs: Any) -> Any:
        call = CURRENT.get()
        assert call is not None
        activation = of_prompt(call.terms, args, kwargs)
        return run_with(dataclasses.replace(call, activation=activation), generate, args, kwargs)

    return run


def _copies_of_a_row(base: nn.Module, kwargs: Mapping[str, Any]) -> int:
    """How often ``generate`` repeats each row: for beams or returned sequences."""
    config = kwargs.get("generation_config") or getattr(base, "generation_config", None)
    wanted = (
        kwargs.get(n) or getattr(config, n, None) for n in ("num_beams", "num_return_sequences")
    )
    return max((int(number) for number in wanted if number), default=1)
