"""Which modules of a model an adapter's config selects.

The meaning is PEFT's: ``tuners_utils.check_target_module_exists`` and
``_maybe_include_all_linear_layers`` (0.21). Names are compared completely or from a dot on. A text
as ``target_modules`` or ``exclude_modules`` is a pattern.
"""

from __future__ import annotations

from collections.abc import Collection

from ..files.facts import Layout, ModuleKind
from .naming import Naming
from .patterns import Patterns
from .tuner_config import ALL_LINEAR, TunerConfig


class TargetSelection:
    """The modules that one config selects, by the file's names. ``kinds`` are the kinds of modules
    that the method can adapt.

    All methods raise ``PatternError``.
    """

    def __init__(
        self, config: TunerConfig, patterns: Patterns, kinds: Collection[ModuleKind]
    ) -> None:
        self._config = config
        self._kinds = frozenset(kinds)
        self._patterns = patterns
        self._targets = _as_set(config.targets)
        self._exclude = _as_set(config.exclude)
        self._layers = None if config.layers is None else frozenset(config.layers)
        self._selected: dict[str, bool] = {}  # the checks ask for most names twice

    @property
    def is_all_linear(self) -> bool:
        targets = self._config.targets
        return isinstance(targets, str) and targets.lower() == ALL_LINEAR

    def excludes(self, name: str) -> bool:
        """Whether ``exclude_modules`` or ``modules_to_save`` excludes ``name``."""
        if isinstance(self._config.exclude, str):
            if self._patterns.match_all(self._config.exclude, name):
                return True
        elif self._exclude and _ends_in(name, self._exclude):
            return True
        saved = self._config.modules_to_save
        return bool(saved) and any(self._patterns.match_inside(m, name) for m in saved)

    def selects(self, name: str) -> bool:
        """Whether the module ``name`` is adapted (``all-linear`` needs more than a name, see
        :meth:`live_modules`)."""
        known = self._selected.get(name)
        if known is None:
            known = self._selected[name] = self._selects(name)
        return known

    def _selects(self, name: str) -> bool:
        targets = self._config.targets
        if targets is None or self.excludes(name):
            return False
        if isinstance(targets, str):
            return self._patterns.match_all(targets, name)
        if name in self._targets:
            return True  # PEFT ignores the layers for a complete name
        if not _ends_in(name, self._targets):
            return False
        if self._layers is None:
            return True
        return self._patterns.layer_index(self._config.layers_pattern, name) in self._layers

    def live_modules(self, layout: Layout, naming: Naming) -> frozenset[str]:
        """The live modules of a kind that the method can adapt and that the config selects."""
        found: set[str] = set()
        for live, module in layout.modules.items():
            if module.kind not in self._kinds:
                continue
            author = naming.author(live)
            if not self.is_all_linear:
                chosen = self.selects(author)
            else:
                linear = module.kind in (ModuleKind.LINEAR, ModuleKind.CONV1D)
                chosen = linear and live not in layout.output_modules and not self.excludes(author)
            if chosen:
                found.add(live)
        return frozenset(found)


def _as_set(names: str | tuple[str, ...] | None) -> frozenset[str]:
    return frozenset(names) if isinstance(names, tuple) else frozenset()


def _ends_in(name: str, wanted: Collection[str]) -> bool:
    """Whether ``name``, or what follows one of its dots, is in ``wanted``."""
    if name.rpartition(".")[2] in wanted:
        return True  # nearly all configs name the last part alone
    while True:
        if name in wanted:
            return True
        _, dot, name = name.partition(".")
        if not dot:
            return False
