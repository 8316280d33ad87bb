"""The layout of a base whose token embeddings are resized, as by transformers'
``resize_token_embeddings``: the input embedding, the output embedding, and what is tied to
either."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..files.facts import AdapterPlan, Layout, ModuleKind, ModuleShape
from .new_adapter import input_embedding
from .trainable_tokens import rows_of


def token_modules(layout: Layout) -> tuple[str, ...]:
    """The modules with a row for each token, the input embedding first. Empty where the embedding
    or its number of rows is not known."""
    embedding = input_embedding(layout)
    rows = None if embedding is None else layout.modules[embedding].in_features
    if embedding is None or rows is None:
        return ()
    heads = (name for name in layout.output_modules if rows_of(layout.modules[name]) == rows)
    found = dict.fromkeys((embedding, *heads))
    for name in list(found):
        found.update(dict.fromkeys(tied_to(layout, name)))
    return tuple(name for name in found if name in layout.modules)


def token_rows(layout: Layout) -> int | None:
    """The number of rows of the token embedding, where it is known."""
    names = token_modules(layout)
    return layout.modules[names[0]].in_features if names else None


def tied_to(layout: Layout, module: str) -> Iterator[str]:
    """The other modules that share the weight of ``module``."""
    own = f"{module}.weight"
    source = layout.tied.get(own, own)
    for name in (source, *(tied for tied, other in layout.tied.items() if other == source)):
        if name != own and name.endswith(".weight"):
            yield name.removesuffix(".weight")


def resized(layout: Layout, rows: int) -> Layout:
    """``layout`` with ``rows`` rows in each module that has a row for each token."""
    modules = dict(layout.modules)
    names = token_modules(layout)
    for name in names:
        modules[name] = _with_rows(modules[name], rows)
    biases = {f"{name}.bias" for name in names}
    for one, other in layout.tied.items():  # BERT's head owns the bias of its decoder
        for name in {one, other} if biases & {one, other} else ():
            owner, _, leaf = name.rpartition(".")
            if leaf in modules[owner].parameters:
                parameters = {**modules[owner].parameters, leaf: (rows,)}
                modules[owner] = replace(modules[owner], parameters=parameters)
    return replace(layout, modules=modules)


def _with_rows(module: ModuleShape, rows: int) -> ModuleShape:
    parameters = {name: (rows, *shape[1:]) for name, shape in module.parameters.items()}
    if module.kind is ModuleKind.EMBEDDING:
        return replace(module, in_features=rows, parameters=parameters)
    return replace(module, out_features=rows, parameters=parameters)


def without_rows(plan: AdapterPlan, layout: Layout, new: range) -> tuple[str, ...]:
    """The modules with a row for each token for which an adapter does not have all ``new`` rows.
    ``layout`` has these rows already."""
    return tuple(
        name for name in token_modules(layout) if new and not _has_rows(plan, layout, name, new)
    )


def _has_rows(plan: AdapterPlan, layout: Layout, name: str, new: range) -> bool:
    if any(name == saved or name.startswith(f"{saved}.") for saved in plan.saved):
        return True
    if any(module in plan.embeddings for module in (name, *tied_to(layout, name))):
        return True
    if "bias" in layout.modules[name].parameters:
        return False  # trained rows replace rows of the weight alone
    trained = (site.settings.get("indices", ()) for site in plan.sites if site.module == name)
    return any(set(new) <= set(indices) for indices in trained)
