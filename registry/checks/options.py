"""Is every field of the config known, and of the right type?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...manifests.findings import fit as codes
from ...manifests.findings.code import Code
from ...manifests.findings.finding import Finding, Where
from ...manifests.language.names import did_you_mean
from ..files.wording import count, shown, some
from ..methods.foreign_fields import FOREIGN_FIELDS
from ..methods.method import Method
from ..methods.options import COMMON, Expect, Option, Support, is_neutral
from ..methods.peft_table import PEFT_REFUSED
from ..methods.table import METHODS, THROUGH_PEFT

_MOST_UNKNOWN = 20
"""Unknown fields that get a finding each."""
_MISSPELT = 0.8
"""The similarity of a misspelling and the word: one letter more or less, or two exchanged."""

PEFT_METHODS = frozenset({*METHODS, *THROUGH_PEFT, *PEFT_REFUSED})
"""Methods that PEFT knows (0.21.2), or once knew."""


def check_method(config: Mapping[str, Any], where: Where) -> tuple[Method | None, list[Finding]]:
    """The row of the adapter's method, or why there is none."""
    value = config.get("peft_type")
    if not isinstance(value, str) or not value:
        found = "nothing" if value is None else repr(value)
        message = "adapter_config.json does not set peft_type"
        return None, [codes.METHOD_MISSING.finding(message, where, found=found)]
    method = METHODS.get(value) or THROUGH_PEFT.get(value)
    if method is not None:
        return method, []
    if value in PEFT_REFUSED:
        message, hint = f"Cannot attach the method {value}: {PEFT_REFUSED[value]}", None
    else:
        message = f"Unknown method {shown(value)!r}"
        hint = did_you_mean(value[:80].upper(), PEFT_METHODS)
    supported = f"{', '.join(METHODS)}; through PEFT: {', '.join(THROUGH_PEFT)}"
    finding = codes.METHOD_UNSUPPORTED.finding(
        message, where, found=shown(value), expected=supported, hint=hint
    )
    return None, [finding]


def check_types(config: Mapping[str, Any], method: Method, where: Where) -> list[Finding]:
    """Fields whose value has the wrong type; with these, nothing can be planned."""
    kinds = {**COMMON, **{o.name: o.expect for o in method.options}}
    return [
        codes.OPTION_TYPE.finding(
            f"Invalid value of {name} in adapter_config.json",
            where,
            found=shown(repr(value), 80),
            expected=wrong,
        )
        for name, value in config.items()
        if name in kinds and (wrong := kinds[name](value)) is not None
    ]


def check_options(
    config: Mapping[str, Any],
    method: Method,
    where: Where,
    unknown: Code = codes.OPTION_UNCHECKED,
) -> list[Finding]:
    """Fields that are not supported, fields of other trainers, and unknown fields: these get
    the code ``unknown``, unless they are another method's or misspelt."""
    known = {**FOREIGN_FIELDS, **{option.name: option for option in method.options}}
    findings: list[Finding] = []
    unset: list[str] = []
    training: list[str] = []
    strange: dict[str, Finding] = {}
    for name, value in config.items():
        option = known.get(name)
        if option is not None:
            findings.extend(_check_option(option, value, where))
            foreign = option is FOREIGN_FIELDS.get(name) and option.support is Support.NO_EFFECT
            if foreign and not is_neutral(value):
                training.append(f"{name} {option.meaning}")
        elif name not in COMMON and is_neutral(value):
            unset.append(name)
        elif name not in COMMON:
            strange[name] = _strange(name, config, method, where, unknown)
    findings += list(strange.values())[:_MOST_UNKNOWN]
    if len(strange) > _MOST_UNKNOWN:
        more = count(len(strange) - _MOST_UNKNOWN, "more field")
        message = f"Unknown fields in adapter_config.json: {more}"
        findings.append(unknown.finding(message, where))
    if training:
        message = f"Fields of another trainer in adapter_config.json: {some(training)}"
        findings.append(codes.OPTION_OF_TRAINER.finding(message, where))
    if unset:
        message = f"Unknown fields without a value in adapter_config.json: {some(unset)}"
        findings.append(codes.OPTION_UNKNOWN_NEUTRAL.finding(message, where))
    return findings


def _strange(
    name: str, config: Mapping[str, Any], method: Method, where: Where, unknown: Code
) -> Finding:
    """The finding on a field that the method does not have."""
    message, hint = f"Unknown field {shown(name, 80)!r} in adapter_config.json", None
    rows = {**METHODS, **THROUGH_PEFT}.items()
    if others := [other for other, row in rows if any(o.name == name for o in row.options)]:
        unknown = codes.OPTION_UNKNOWN
        message = f"adapter_config.json sets {name}, which {method.peft_type} does not have"
        hint = f"Remove it if the adapter is {method.peft_type}: it is a field of {some(others)}."
    elif near := did_you_mean(name[:80], _possible(config, method, config[name]), _MISSPELT):
        unknown, hint = codes.OPTION_UNKNOWN, near
    return unknown.finding(message, where, found=shown(repr(config[name]), 80), hint=hint)


def _possible(config: Mapping[str, Any], method: Method, value: object) -> list[str]:
    """The fields that an unknown one with this value may be a misspelling of: not set yet (PEFT
    writes all of them), supported, and of this type."""
    fields: dict[str, Expect] = dict(COMMON)
    for option in method.options:
        if option.support in (Support.SUPPORTED, Support.NO_EFFECT):
            fields[option.name] = option.expect
    return [name for name, expect in fields.items() if name not in config and not expect(value)]


def check_contradictions(config: Mapping[str, Any], where: Where) -> list[Finding]:
    """Combinations of fields, of any method, that PEFT itself refuses."""
    findings: list[Finding] = []

    def contradicts(message: str) -> None:
        findings.append(codes.OPTION_CONTRADICTION.finding(message, where))

    if isinstance(config.get("target_modules"), str):
        for name in ("layers_to_transform", "layers_pattern"):
            if config.get(name) is not None:
                contradicts(f"{name} cannot be combined with a target_modules that is a pattern")
    elif config.get("layers_pattern") and config.get("layers_to_transform") is None:
        contradicts("layers_pattern needs layers_to_transform")
    if config.get("use_dora") and config.get("lora_bias"):
        contradicts("use_dora cannot be combined with lora_bias")
    return findings


def _check_option(option: Option, value: object, where: Where) -> list[Finding]:
    if option.support in (Support.SUPPORTED, Support.NO_EFFECT) or is_neutral(value):
        return []
    never = option.support is Support.NEVER
    return [
        codes.OPTION_UNSUPPORTED.finding(
            f"{option.name} {option.meaning}, which is not {'done' if never else 'supported yet'}",
            where,
            found=f"{option.name}: {shown(repr(value), 80)}",
            expected="null, false or empty",
        )
    ]
