"""What in a script changes from PEFT's and transformers' adapter API to ours, line by line.

Reads the script with ``ast`` and runs nothing. A name is followed from where it is bound: an import
(under any alias), a call that returns a model, an annotation, ``self.model = ...``. Where the model
behind a call is not known, the row says so.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeGuard

from ..manifests.findings import usage as codes
from ..manifests.findings.errors import UsageError
from ..manifests.findings.finding import Finding, Where
from .upstream_names import MODEL, PEFT, TRANSFORMERS, Upstream, by_name, written

LONGEST = 60
"""Longer calls are shortened where they are shown."""
_MODULES = ("peft", "transformers")
_NO_LAYERS = "no module is replaced: an adapter has the names of the modules that it acts on"
_GENERAL = frozenset(
    {"forward", "generate", "save_pretrained", "push_to_hub", "base_model", "model", "prefix"}
)
"""Names that are not of adapters alone: no row for these on an unknown model."""
_GIVES_BASE = frozenset({"merge_and_unload", "unload", "get_base_model"})
_HARMLESS = frozenset(
    {
        ("safe_serialization", True),
        ("save_embedding_layers", False),
        ("save_embedding_layers", "auto"),
    }
)
"""Arguments that change nothing with these values."""
_CONFIGS = frozenset({"peft_config", "active_peft_config"})
_RUNS = frozenset({"forward", "generate"})
_CHANGES_NOTHING = (
    "changing a config object changes nothing: pass another to add_adapter or from_pretrained"
)
_ALONE = "the base has no adapters in it here, so it would answer without them"
_KEEPS = frozenset({"to", "cuda", "cpu", "eval", "train", "half", "float", "bfloat16", "prepare"})
"""Methods that return the model itself, or a wrapper of it."""


@dataclass(frozen=True)
class Change:
    """One place in a script.

    Args:
        file: The script.
        line: From 1.
        column: From 1.
        theirs: The call as it is written, shortened.
        ours: What to write; empty to leave it out.
        note: What is different.
        certain: Whether the model behind the call is known.
    """

    file: str
    line: int
    column: int
    theirs: str
    ours: str
    note: str
    certain: bool = True


@dataclass(frozen=True)
class Migration:
    """What was found in scripts: the ``changes``, how many calls stay as they are, and
    ``findings`` of scripts that cannot be read."""

    scripts: int
    changes: tuple[Change, ...]
    unchanged: int
    findings: tuple[Finding, ...] = ()


def migrate(paths: Iterable[Path]) -> Migration:
    """Look through scripts, and through folders of them.

    Raises :class:`UsageError` for a path that is neither. A script that cannot be parsed is a
    finding.
    """
    changes: list[Change] = []
    findings: list[Finding] = []
    unchanged = number = 0
    for script in _scripts(paths):
        number += 1
        try:
            found, same = changes_in(script.read_bytes(), str(script))
        except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
            findings.append(_unreadable(script, error))
            continue
        changes += found
        unchanged += same
    return Migration(number, tuple(changes), unchanged, tuple(findings))


def changes_in(source: bytes | str, file: str) -> tuple[list[Change], int]:
    """The changes in one script, in the order of its lines, and how many calls stay. Raises what
    ``ast.parse`` raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes are for the script's author
        tree = ast.parse(source, file)
    first = _Reader(file)  # attributes are bound in one method and used in others
    first.block(tree.body, _Scope())
    reader = _Reader(file, first.attributes)
    reader.block(tree.body, _Scope())
    return sorted(reader.changes, key=lambda one: (one.line, one.column)), reader.unchanged


def _scripts(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_file() and path.suffix in (".py", ".pyw"):
            yield path
            continue
        found = sorted(one for one in path.rglob("*.py") if one.is_file()) if path.is_dir() else []
        kept = [one for one in found if not _is_hidden(one.relative_to(path))]
        if not kept:
            what = "No Python script in" if path.is_dir() else "Not a Python script:"
            if not path.exists():
                what = "No such file or folder:"
            raise UsageError(codes.NO_SCRIPTS.finding(f"{what} {path}"))
        yield from kept


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") or part == "__pycache__" for part in path.parts)


def _unreadable(script: Path, error: Exception) -> Finding:
    line = error.lineno if isinstance(error, SyntaxError) else None
    column = error.offset if isinstance(error, SyntaxError) and line else None
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    where = Where(file=str(script), line=line, column=column or None)
    return codes.SCRIPT_UNREADABLE.finding("Cannot read the script", where, found=said)


@dataclass
class _Scope:
    """What names mean: ``peft`` or ``transformers`` (a module), ``peft:NAME`` (of PEFT's),
    ``class`` (one of transformers'), or the owner of a model."""

    names: dict[str, str] = field(default_factory=dict)
    outer: _Scope | None = None

    def get(self, name: str) -> str | None:
        found = self.names.get(name)
        return found if found is not None or self.outer is None else self.outer.get(name)


class _Reader:
    """Goes through a script in order."""

    def __init__(self, file: str, attributes: Mapping[tuple[str, str], str] | None = None) -> None:
        self.file = file
        self.changes: list[Change] = []
        self.unchanged = 0
        self.attributes: dict[tuple[str, str], str] = dict(attributes or {})
        """What ``self.model`` and the like mean, by class."""
        self._class = ""
        self._said: set[int] = set()
        """Parts of an expression that need no row of their own."""

    def block(self, body: Iterable[ast.AST], scope: _Scope) -> None:
        later: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
        for node in body:
            self._statement(node, scope, later)
        for function in later:  # names of the module that are bound below it count
            inner = _Scope(outer=scope)
            arguments = function.args
            for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                if one.annotation is not None and (kind := self._annotated(one.annotation, scope)):
                    inner.names[one.arg] = kind
                else:
                    inner.names[one.arg] = ""
            self.block(function.body, inner)

    def _statement(
        self,
        node: ast.AST,
        scope: _Scope,
        later: list[ast.FunctionDef | ast.AsyncFunctionDef],
    ) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            later.append(node)
            own = (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults)
            for one in own:
                if one is not None:
                    self._expression(one, scope)
            if node.returns is not None and (kind := self._annotated(node.returns, scope)):
                scope.names[node.name] = f"{_RETURNS}{kind}"
        elif isinstance(node, ast.ClassDef):
            for base in node.bases:
                self._expression(base, scope)
            outside, self._class = self._class, node.name
            self.block(node.body, _Scope(outer=scope))
            self._class = outside
        elif isinstance(node, ast.Import | ast.ImportFrom):
            self._import(node, scope)
        elif isinstance(node, ast.Assign):
            self._expression(node.value, scope)
            for target in node.targets:
                self._expression(target, scope)
                self._bind(target, node.value, scope)
        elif isinstance(node, ast.AnnAssign):
            if node.value is not None:
                self._expression(node.value, scope)
            kind = self._annotated(node.annotation, scope)
            if kind or node.value is None:
                self._set(node.target, kind or "", scope)
            else:
                self._bind(node.target, node.value, scope)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self._expression(node.iter, scope)
            self._expression(node.target, scope)
            self._branches([node.body, node.orelse], scope, later, node.target)
        elif isinstance(node, ast.If | ast.While):
            self._expression(node.test, scope)
            self._branches([node.body, node.orelse], scope, later)
        elif isinstance(node, ast.Try | _TryStar):
            handlers = [one.body for one in node.handlers]
            self._branches([[*node.body, *node.orelse], *handlers], scope, later)
            self._statements(node.finalbody, scope, later)
        elif isinstance(node, ast.Match):
            self._expression(node.subject, scope)
            self._branches([[one] for one in node.cases], scope, later)
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self._expression(item.context_expr, scope)
                if item.optional_vars is not None:
                    self._bind(item.optional_vars, item.context_expr, scope)
            self._statements(node.body, scope, later)
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            for child in ast.iter_child_nodes(node):
                self._statement(child, scope, later)
        elif isinstance(node, ast.expr):
            self._expression(node, scope)

    def _statements(
        self,
        body: Iterable[ast.AST],
        scope: _Scope,
        later: list[ast.FunctionDef | ast.AsyncFunctionDef],
    ) -> None:
        for one in body:
            self._statement(one, scope, later)

    def _branches(
        self,
        bodies: Iterable[Iterable[ast.AST]],
        scope: _Scope,
        later: list[ast.FunctionDef | ast.AsyncFunctionDef],
        target: ast.expr | None = None,
    ) -> None:
        """Bodies of which one may run: after them a name means what it may mean that matters most.
        ``target`` is bound in the first."""
        before = scope.names
        ends: list[dict[str, str]] = []
        for body in bodies:
            scope.names = dict(before)
            if target is not None and not ends:
                self._set(target, None, scope)
            self._statements(body, scope, later)
            ends.append(scope.names)
        names = dict.fromkeys(name for end in ends for name in end)
        scope.names = {
            name: max((end[name] for end in ends if name in end), key=_weight) for name in names
        }

    def _import(self, node: ast.Import | ast.ImportFrom, scope: _Scope) -> None:
        if isinstance(node, ast.Import):
            for one in node.names:
                root = one.name.partition(".")[0]
                if root in _MODULES:
                    scope.names[one.asname or root] = root
            return
        root = (node.module or "").partition(".")[0] if not node.level else ""
        for one in node.names:
            name = one.asname or one.name
            if root == "peft":
                exported = by_name(PEFT) if one.name == "*" else (one.name,)
                for each in exported:
                    scope.names[each if one.name == "*" else name] = f"peft:{each}"
                self._note_import(node, one)
            elif root == "transformers":
                scope.names[name] = "class"

    def _note_import(self, node: ast.ImportFrom, one: ast.alias) -> None:
        known = by_name(PEFT).get(one.name)
        if known is None and one.name != "*":
            self.unchanged += 1  # configs and task types stay PEFT's
            return
        ours, note = "", "not needed"
        if known is None:
            note = "cannot tell which names the script takes from it; import those by name"
        elif known.ours.startswith(f"adapterdock.{one.name}"):
            ours, note = f"from adapterdock import {one.name}", ""
        elif "AdaptedModel" in known.ours:
            ours, note = "from adapterdock import AdaptedModel", ""
        theirs = f"from {node.module} import {one.name}"
        place = (self.file, one.lineno, one.col_offset + 1)
        self.changes.append(Change(*place, theirs, ours, note, known is not None))

    # -- expressions -----------------------------------------------------------------------

    def _expression(self, node: ast.AST, scope: _Scope) -> None:
        self._said.clear()
        for one in ast.walk(node):
            if isinstance(one, ast.NamedExpr):
                self._bind(one.target, one.value, scope)
        for one in ast.walk(node):
            if isinstance(one, ast.Call):
                self._said.add(id(one.func))
                self._call(one, scope)
            elif isinstance(one, ast.Attribute) and id(one) not in self._said:
                self._attribute(one, scope)

    def _call(self, node: ast.Call, scope: _Scope) -> None:
        if isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "issubclass"):
            self._check_of_class(node, scope)
        if self._call_of_base(node, scope):
            return
        function = self._meaning(node.func, scope)
        if function is not None and function.startswith("peft:"):
            known = by_name(PEFT).get(function.removeprefix("peft:"))
            if known is not None:
                self._add(node, known, node.keywords)
            return
        if isinstance(node.func, ast.Attribute):
            self._method(node, node.func, node.keywords, scope)

    def _call_of_base(self, node: ast.Call, scope: _Scope) -> bool:
        """A call of PEFT's ``model.base_model``, which has the adapters in it."""
        of = node.func
        if isinstance(of, ast.Attribute) and of.attr in _RUNS:
            of = of.value
        method = "" if of is node.func else f".{ast.unparse(node.func).rpartition('.')[2]}"
        names = ("get_base_model",) if isinstance(of, ast.Call) else ("base_model", "model")
        part = of.func if isinstance(of, ast.Call) else of
        if not isinstance(part, ast.Attribute) or part.attr not in names:
            return False
        if self._meaning(part.value, scope) != MODEL:
            return False
        self._said.update(id(one) for one in ast.walk(node.func))
        model = self._wrapper(part.value, scope)
        place = (self.file, node.lineno, node.col_offset + 1)
        self.changes.append(Change(*place, _short(node), f"{_short(model)}{method}(...)", _ALONE))
        return True

    def _check_of_class(self, node: ast.Call, scope: _Scope) -> None:
        """``isinstance`` with a class of PEFT's would be False from now on, without an error."""
        if len(node.args) != 2:
            return
        for one in ast.walk(node.args[1]):
            meaning = self._meaning(one, scope) if isinstance(one, ast.expr) else None
            if meaning is None or not meaning.startswith("peft:"):
                continue
            name = meaning.removeprefix("peft:")
            if name in by_name(PEFT) and _makes_model(name):
                ours, note = f"{ast.unparse(node.func)}(..., AdaptedModel)", ""
            elif name.endswith("Layer"):
                ours, note = "name in model.adapters[adapter].modules", _NO_LAYERS
            else:
                continue
            place = (self.file, node.lineno, node.col_offset + 1)
            self.changes.append(Change(*place, _short(node), ours, note))
            return

    def _attribute(self, node: ast.Attribute, scope: _Scope) -> None:
        if isinstance(node.ctx, ast.Load):
            self._method(node, node, [], scope)
        elif isinstance(node.ctx, ast.Store) and self._is_config(node.value, scope):
            place = (self.file, node.lineno, node.col_offset + 1)
            self.changes.append(Change(*place, _short(node), "", _CHANGES_NOTHING))

    def _is_config(self, node: ast.expr, scope: _Scope) -> bool:
        """Whether it is a config object of a model's adapter."""
        if isinstance(node, ast.Subscript):
            node = node.value
        if not isinstance(node, ast.Attribute) or node.attr not in _CONFIGS:
            return False
        return self._meaning(node.value, scope) == MODEL

    def _method(
        self, node: ast.expr, at: ast.Attribute, keywords: list[ast.keyword], scope: _Scope
    ) -> None:
        owner = self._meaning(at.value, scope)
        if owner in (MODEL, TRANSFORMERS):
            known = by_name(owner).get(at.attr)
            if known is not None:
                self._add(node, known, keywords, self._wrapper(at.value, scope))
        elif owner is None and at.attr not in _GENERAL:
            both = (by_name(MODEL).get(at.attr), by_name(TRANSFORMERS).get(at.attr))
            known = [one for one in both if one is not None]
            changed = [one for one in known if not one.stays or _renamed(one, keywords)]
            if changed:
                self._add(node, changed[0], keywords, at.value, certain=False)

    def _wrapper(self, model: ast.expr, scope: _Scope) -> ast.expr:
        """The wrapper itself, where a script calls the tuner inside PEFT's."""
        while isinstance(model, ast.Attribute) and self._meaning(model.value, scope) == MODEL:
            model = model.value
        return model

    def _add(
        self,
        node: ast.expr,
        known: Upstream,
        keywords: list[ast.keyword],
        model: ast.expr | None = None,
        certain: bool = True,
    ) -> None:
        renamed = _renamed(known, keywords)
        moved = _moved(known, node)
        source = _bare_source(node) if known.source else None
        if known.stays and not renamed and not moved and source is None:
            self.unchanged += certain
            return
        notes = [known.note] if known.note else []
        notes += [f"{name}=: {known.keywords[name]}" for name in renamed]
        notes += [f"{name}: {known.keywords.get(name, f'write {name}=')}" for name in moved]
        if source is not None:
            notes.append(f"write ./{source} for a folder, or hf://{source} for the Hub")
        if not certain:
            notes.insert(0, "cannot tell whether this is a model with adapters")
        self.changes.append(
            Change(
                self.file,
                node.lineno,
                node.col_offset + 1,
                _short(node),
                written(known.ours, "model" if model is None else _short(model)),
                "; ".join(notes),
                certain,
            )
        )

    # -- what names mean -------------------------------------------------------------------

    def _meaning(self, node: ast.AST, scope: _Scope) -> str | None:
        """What an expression is; ``None`` if that is unknown, ``""`` if it is nothing of
        these."""
        if isinstance(node, ast.Name):
            found = scope.get(node.id)
            return "" if found == _NOTHING else found or None
        if isinstance(node, ast.Await):
            return self._meaning(node.value, scope)
        if isinstance(node, ast.NamedExpr):
            return self._meaning(node.value, scope)
        if isinstance(node, ast.Call):
            return self._result(node, scope)
        if isinstance(node, ast.Attribute):
            return self._member(node, scope)
        if isinstance(
            node, ast.Constant | ast.List | ast.Dict | ast.Tuple | ast.Set | ast.JoinedStr
        ):
            return ""
        return None

    def _member(self, node: ast.Attribute, scope: _Scope) -> str | None:
        known = self.attributes.get((self._class, ast.unparse(node)))
        if known is not None:
            return known or None
        owner = self._meaning(node.value, scope)
        if owner == "peft":
            part = node.attr.islower() and node.attr not in by_name(PEFT)
            return "peft" if part else f"peft:{node.attr}"
        if owner == "transformers":
            return "class"
        if owner is not None and owner.startswith("peft:"):
            return f"{owner}.{node.attr}"
        if owner == MODEL and node.attr == "base_model":
            return MODEL  # the tuner: it has the methods too
        if owner == MODEL and node.attr == "model":
            return TRANSFORMERS  # the tuner's
        return "" if owner in ("class", "") else None

    def _result(self, node: ast.Call, scope: _Scope) -> str | None:
        function = node.func
        meaning = self._meaning(function, scope)
        if meaning is not None and meaning.startswith("peft:"):
            name = meaning.removeprefix("peft:")
            known = by_name(PEFT).get(name)
            return MODEL if known is not None and _makes_model(name) else ""
        if meaning is not None and meaning.startswith(_RETURNS):
            return meaning.removeprefix(_RETURNS)
        if not isinstance(function, ast.Attribute):
            return "" if meaning in ("class", "") else None
        owner = self._meaning(function.value, scope)
        if owner == "class":
            return TRANSFORMERS if function.attr in ("from_pretrained", "from_config") else ""
        if owner == MODEL and function.attr in _GIVES_BASE:
            return TRANSFORMERS
        if owner in (MODEL, TRANSFORMERS):
            return owner if function.attr in _KEEPS else ""
        if _prepares(node) and node.args:
            return self._meaning(node.args[0], scope)
        return None

    def _annotated(self, node: ast.expr, scope: _Scope) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            try:
                node = ast.parse(node.value, mode="eval").body
            except SyntaxError:
                return None
        for one in ast.walk(node):
            meaning = self._meaning(one, scope) if isinstance(one, ast.expr) else None
            if meaning is not None and _makes_model(meaning.removeprefix("peft:")):
                return MODEL
            if isinstance(one, ast.Name | ast.Attribute) and "PreTrainedModel" in ast.unparse(one):
                return TRANSFORMERS
        return None

    def _bind(self, target: ast.expr, value: ast.expr, scope: _Scope) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            values: list[ast.expr | None] = [None] * len(target.elts)
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
                values = list(value.elts)
            elif _prepares(value) and len(value.args) == len(target.elts):
                values = list(value.args)
            for one, its in zip(target.elts, values, strict=True):
                if its is None:
                    self._set(one, None, scope)
                else:
                    self._bind(one, its, scope)
            return
        self._set(target, self._meaning(value, scope), scope)

    def _set(self, target: ast.expr, meaning: str | None, scope: _Scope) -> None:
        if isinstance(target, ast.Name):
            if meaning is None:
                scope.names[target.id] = ""
            else:
                scope.names[target.id] = meaning or _NOTHING
        elif isinstance(target, ast.Attribute):
            key = (self._class, ast.unparse(target))
            if meaning or key not in self.attributes:  # `self.model = None` says nothing
                self.attributes[key] = meaning or ""
        elif isinstance(target, ast.Tuple | ast.List):
            for one in target.elts:
                self._set(one, None, scope)


_RETURNS = "returns:"
"""Before what a function returns."""
_NOTHING = "nothing"
"""The meaning of a name that is certainly no model."""


_TryStar: type[ast.Try] = getattr(ast, "TryStar", ast.Try)
"""``try`` with ``except*``, which Python 3.10 lacks."""


def _weight(meaning: str) -> int:
    """How much a meaning matters, if a name may have several."""
    if meaning in (MODEL, TRANSFORMERS):
        return 4 if meaning == MODEL else 2
    return 3 if ":" in meaning else 1 if meaning not in ("", _NOTHING) else 0


def _prepares(node: ast.expr) -> TypeGuard[ast.Call]:
    """Whether it is ``accelerator.prepare(model, ...)``, which returns what it gets."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "prepare"
    )


def _bare_source(node: ast.expr) -> str | None:
    """The first argument, if it is text that could be a folder or an id on the Hub."""
    first = node.args[0] if isinstance(node, ast.Call) and node.args else None
    text = first.value if isinstance(first, ast.Constant) else None
    bare = isinstance(text, str) and "://" not in text and not text.startswith((".", "/", "~"))
    return text if isinstance(text, str) and text and bare else None


def _renamed(known: Upstream, keywords: Iterable[ast.keyword]) -> list[str]:
    return [
        one.arg
        for one in keywords
        if one.arg is not None and one.arg in known.keywords and not _is_harmless(one)
    ]


def _is_harmless(argument: ast.keyword) -> bool:
    value = argument.value
    return isinstance(value, ast.Constant) and (argument.arg, value.value) in _HARMLESS


def _moved(known: Upstream, node: ast.expr) -> tuple[str, ...]:
    """Arguments without a name that have another place here, or none."""
    if not isinstance(node, ast.Call) or any(isinstance(one, ast.Starred) for one in node.args):
        return ()
    return known.others[: max(0, len(node.args) - known.placed)]


def _makes_model(name: str) -> bool:
    """Whether a class of PEFT's is a model, or a function or class method returns one."""
    known = by_name(PEFT)
    kind = name.partition(".")[0]
    if kind == "get_peft_model":
        return True
    return f"{kind}.from_pretrained" in known and name in (kind, f"{kind}.from_pretrained")


def _short(node: ast.expr) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def rows(changes: Iterable[Change]) -> list[Mapping[str, object]]:
    """The changes as plain data."""
    return [dict(vars(change)) for change in changes]
