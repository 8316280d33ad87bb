"""From the tree to the data that the schema needs: each value is read as the type expected there.

``2.10`` is text where text is expected, and a number where a number is. A value that does not fit
is left as it is, and validation reports it.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, Union

from pydantic import BaseModel

from ..language.source import Source
from .nodes import Entry, Items, Map, Node, Path, Scalar, is_null, plain_data
from .scalars import NOT_NATIVE


@dataclass(frozen=True)
class Shape:
    """What one place accepts: types of scalars, the keys of a model, or a container.

    ``choices`` are the allowed values, if there are only a few. ``named`` says that the keys of
    ``values`` are names, so that ``x-`` keys are notes.
    """

    scalars: frozenset[type] = frozenset()
    choices: tuple[str, ...] = ()
    anything: bool = False
    fields: Mapping[str, Shape] = field(default_factory=dict)
    is_model: bool = False
    values: Shape | None = None
    named: bool = False
    items: Shape | None = None


@cache
def shape_of(annotation: Any) -> Shape:
    """The shape for a type annotation of the schema."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return shape_of(arguments[0])
    if annotation is Any:
        return Shape(anything=True)
    if origin in (Union, types.UnionType):
        return _union([shape_of(argument) for argument in arguments])
    if origin is Literal:
        kinds = frozenset(type(value) for value in arguments)
        return Shape(scalars=kinds, choices=tuple(str(value) for value in arguments))
    if origin is tuple:
        return Shape(items=shape_of(arguments[0]))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Shape(values=shape_of(arguments[1]), named=arguments[0] is not str)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        shapes = {name: shape_of(info.annotation) for name, info in annotation.model_fields.items()}
        return Shape(fields=shapes, is_model=True)
    if annotation is Source:
        return Shape(scalars=frozenset({str}))
    return Shape(scalars=frozenset({annotation}))


def _union(shapes: list[Shape]) -> Shape:
    merged = Shape()
    for shape in shapes:
        merged = Shape(
            scalars=merged.scalars | shape.scalars,
            choices=merged.choices + shape.choices,
            anything=merged.anything or shape.anything,
            fields=merged.fields or shape.fields,
            is_model=merged.is_model or shape.is_model,
            values=merged.values or shape.values,
            named=merged.named or shape.named,
            items=merged.items or shape.items,
        )
    return merged


def shape_at(shape: Shape, path: Path) -> Shape:
    """The shape at ``path`` under ``shape``."""
    for part in path:
        inner = shape.fields.get(str(part)) if shape.is_model else shape.values or shape.items
        if inner is None:
            return Shape()
        shape = inner
    return shape


def set_aside(root: Map, shape: Shape) -> tuple[Map, dict[Path, Node]]:
    """``root`` without its ``x-`` keys, and these by their paths.

    They are allowed in every mapping whose keys are the schema's own or names. Mappings that are
    passed on unchanged (quantization, storage options) keep them.
    """
    extras: dict[Path, Node] = {}
    return _set_aside(root, shape, (), extras), extras


def _set_aside(node: Map, shape: Shape, path: Path, extras: dict[Path, Node]) -> Map:
    entries: dict[str, Entry] = {}
    for key, entry in node.entries.items():
        if key.startswith("x-"):
            extras[(*path, key)] = entry.value
            continue
        inner = shape.fields.get(key) if shape.is_model else shape.values
        if isinstance(entry.value, Map) and inner is not None and (inner.is_model or inner.named):
            entry = replace(entry, value=_set_aside(entry.value, inner, (*path, key), extras))
        entries[key] = entry
    return replace(node, entries=entries)


def conform(node: Node, shape: Shape) -> Any:
    """Plain data: dicts, tuples where the schema has lists, and values of the expected types."""
    if isinstance(node, Scalar):
        return _scalar(node, shape)
    if shape.anything:
        return plain_data(node)
    if isinstance(node, Items):
        inner = shape.items
        if inner is None:
            return plain_data(node)
        return tuple(conform(item, inner) for item in node.items)
    if shape.is_model:
        return _model(node, shape)
    if shape.values is None:
        return plain_data(node)
    return {key: _value(entry.value, shape.values) for key, entry in node.entries.items()}


def _model(node: Map, shape: Shape) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, entry in node.entries.items():
        inner = shape.fields.get(key)
        if inner is None:
            data[key] = None  # an unknown key: validation reports it
        elif not is_null(entry.value) or type(None) in inner.scalars:
            data[key] = conform(entry.value, inner)
        # else a key without a value counts as missing
    return data


def _value(node: Node, shape: Shape) -> Any:
    if shape.is_model and is_null(node):
        return {}
    return conform(node, shape)


def _scalar(scalar: Scalar, shape: Shape) -> Any:
    value, kinds = scalar.value, shape.scalars
    if shape.choices and type(value) not in kinds:
        return str(scalar.text)  # 1.0 and True equal 1, but are not the choice 1
    if scalar.native is not NOT_NATIVE or shape.anything or not scalar.plain:
        return value
    if type(value) in kinds or (type(value) is int and float in kinds):
        return value
    return scalar.text if str in kinds else value
