"""The data of a catalogue site, of any size and without files: what a team might have."""

from __future__ import annotations

import math
from dataclasses import replace

from adapterdock.cli.pages.facts import (
    Adapter,
    Alias,
    Composition,
    Fit,
    Heat,
    Matrix,
    Problem,
    Signature,
    Site,
    Version,
)
from adapterdock.registry.catalogue.promote import AliasValue
from adapterdock.registry.heat_map import HeatMap
from adapterdock.registry.records.entry import EntryFile, EntryMethod

TEAMS = ("support", "billing", "search", "legal", "voice", "risk", "docs")
TASKS = (
    "refunds", "tone", "summaries", "triage", "contracts", "invoices", "routing", "glossary",
    "translation", "complaints", "citations", "extraction", "rewriting", "safety", "greetings",
)  # fmt: skip
BASES = (
    "hf://meta-llama/Llama-3.1-8B-Instruct",
    "hf://Qwen/Qwen3-4B",
    "hf://HuggingFaceTB/SmolLM2-1.7B",
    "hf://mistralai/Mistral-7B-v0.3",
)
METHODS = ("LORA", "LORA", "LORA", "LORA", "IA3", "LOHA", "PROMPT_TUNING")
LICENCES = ("Apache-2.0", "MIT", "llama3.1", "CC-BY-4.0", None)
OWNERS = ("Support ML", "Payments", "Search quality", "Legal tech", None)
KINDS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ABOUT = (
    "Answers questions about {task} in the house's style, short and with a link to the policy.",
    "Trained on last year's tickets about {task}. Keeps names and amounts as they are.",
    "{task}: for agents who write to customers. German, English and Spanish.",
    None,
)


def catalogue(count: int) -> Site:
    """A site with so many adapters."""
    made = [adapter(number) for number in range(count)]
    fits = tuple(
        Fit(one.key, base, *verdict(number, column))
        for number, one in enumerate(made)
        for column, base in enumerate(BASES)
    )
    adapters = tuple(sorted(made, key=lambda one: one.name))
    compositions = (
        Composition(
            "team",
            "helpful",
            "ties",
            (("support/refunds", "0.6"), ("billing/tone", "0.3"), ("careful", "0.4")),
            (("density", "0.5"),),
            True,
            "compositions:\n  helpful:\n    combine: ties\n",
        ),
        Composition(
            "team",
            "careful",
            "sum",
            (("legal/triage", "1"), ("risk/invoices", "*.mlp.* 0.1, * 0.4")),
            lines="compositions:\n  careful:\n    combine: sum\n",
        ),
    )
    return Site("Team adapters", adapters, Matrix(BASES, fits), compositions)


def verdict(number: int, column: int) -> tuple[bool | None, str | None]:
    own = number % len(BASES)
    if column == own:
        return True, None
    return (None, "AD360") if (number + column) % 5 == 0 else (False, "AD301")


def adapter(number: int) -> Adapter:
    team, task = TEAMS[number % len(TEAMS)], TASKS[(number // len(TEAMS)) % len(TASKS)]
    series = number // (len(TEAMS) * len(TASKS))
    name = f"{team}/{task}" + (f"-{series + 1}" if series else "")
    kind = METHODS[number % len(METHODS)]
    rank = 0 if kind in ("IA3", "PROMPT_TUNING") else 4 << (number % 4)
    method = EntryMethod(
        peft_type=kind,
        rank=rank,
        lowest_rank=rank,
        alpha=2.0 * rank if rank else None,
        dtype="BF16",
        targets=KINDS[: 2 + number % 6],
        parameters=rank * 1_310_720 + 16_384,
        peft_version="0.19.1",
    )
    versions = tuple(version(number, at, method) for at in reversed(range(2 + number % 6)))
    best = next((one for one in versions if "yanked" not in one.marks), versions[0])
    about = ABOUT[number % len(ABOUT)]
    aliases = (Alias("prod", values(versions)),)
    file = EntryFile(
        path="adapter_model.safetensors", size=best.size, sha256=f"sha256:{number:064x}",
        role="weights",
    )  # fmt: skip
    source = f"registry://team/{name}@{best.version}"
    return Adapter(
        group="team",
        name=name,
        origin="registry",
        source=source,
        lines=f"registries:\n  team: s3://models/registry\nadapters:\n  {task}:\n"
        f"    source: {source}\n",
        shown=best.version,
        created=best.created,
        owner=OWNERS[number % len(OWNERS)],
        licence=LICENCES[number % len(LICENCES)],
        description=None if about is None else about.format(task=task.capitalize()),
        tags=(task, ("de", "en", "es")[number % 3]),
        base=BASES[number % len(BASES)],
        base_names=(BASES[number % len(BASES)].removeprefix("hf://"),),
        base_note="LlamaForCausalLM, revision 0e9e39f249a1",
        method=method,
        files=(file,),
        marks=best.marks,
        why=best.why,
        data=("https://example.org/data/tickets-2026",),
        code="git 3f2a9c1",
        trained="2026-10-04",
        parents=("team/support/base-style@1.2.0", "team/legal/terms@0.9.0")
        if number % 9 == 0
        else (),
        versions=versions,
        aliases=aliases,
        heat=Heat((heat(number),), True, best.version),
    )


def version(number: int, at: int, method: EntryMethod) -> Version:
    marks: tuple[str, ...] = ()
    if number % 23 == 7 and at == 1 + number % 6:
        marks = ("deprecated",)
    if at == 1 and number % 5 == 0:
        marks = ("yanked",)
    accuracy = 0.78 + 0.03 * at - (0.05 if marks else 0.0) + 0.01 * math.sin(number)
    return Version(
        version=f"1.{at}.0",
        created=f"2026-{3 + at:02}-{1 + number % 28:02}T09:00:00Z",
        digest=f"sha256:{number * 100 + at:064x}",
        aliases=("prod",) if at == 1 + number % 6 else (),
        marks=marks,
        why="It was trained on data that must not be used." if marks else None,
        metrics={
            "accuracy": accuracy,
            "eval_loss": 1.9 - 0.21 * at + (0.2 if marks else 0.0),
            "answers_per_second": 41.0 + 3 * math.cos(at + number),
        },
        signatures=(Signature(("9f86d081884c7d659a2feaa0c55ad015",)),) if number % 3 else (),
        method=method,
        size=method.parameters * 2,
    )


def values(versions: tuple[Version, ...]) -> tuple[AliasValue, ...]:
    found: list[AliasValue] = []
    for number, one in enumerate(reversed(versions[:3]), 1):
        before = found[-1].version if found else None
        why = "Better on the tickets of October" if number > 1 else None
        found.append(AliasValue(number, one.version, one.digest, "ada", one.created, why, before))
    return tuple(found)


def heat(number: int) -> HeatMap:
    kinds = KINDS[: 2 + number % 6]
    rows = tuple(
        (
            layer,
            tuple(
                0.002
                + 0.018 * math.exp(-(((layer - 20 + 2 * at) / 9) ** 2))
                * (1.4 + math.sin(number + at + layer / 5)) / 2
                for at in range(len(kinds))
            ),
        )
        for layer in range(32)
    )  # fmt: skip
    return HeatMap("model.layers", kinds, rows)


EVIL = (
    "\"><script>alert(1)</script><img src=x onerror=alert(2)> '{{ 7 * 7 }}' javascript:x \u202e\x00"
)


def evil() -> Site:
    """A site in which everything that is text is an attack."""
    method = EntryMethod(
        peft_type=EVIL, rank=1, lowest_rank=1, dtype=EVIL, targets=(EVIL,),
        replaced={EVIL: 1}, parameters=1, peft_version=EVIL,
    )  # fmt: skip
    version = Version(EVIL, EVIL, EVIL, (EVIL,), (EVIL, "yanked"), EVIL, {EVIL: 1.0}, method=method)
    adapter = Adapter(
        group=EVIL,
        name=EVIL,
        origin="registry",
        source=EVIL,
        lines=EVIL,
        shown=EVIL,
        created=EVIL,
        owner=EVIL,
        licence=EVIL,
        description=EVIL,
        tags=(EVIL,),
        base=EVIL,
        base_names=(EVIL,),
        base_note=EVIL,
        method=method,
        files=(EntryFile.model_construct(path=EVIL, size=1, sha256=EVIL, role="other"),),
        marks=(EVIL,),
        why=EVIL,
        data=("javascript:alert(1)", EVIL),
        code=EVIL,
        trained=EVIL,
        parents=(EVIL,),
        versions=(version,),
        aliases=(Alias(EVIL, (AliasValue(1, EVIL, EVIL, EVIL, EVIL, EVIL, EVIL),)),),
        heat=Heat((HeatMap(EVIL, (EVIL,), ((1, (1.0,)),)),), notes=(EVIL,), why=EVIL, version=EVIL),
        findings=(Problem(EVIL, EVIL, EVIL),),
    )
    return Site(
        EVIL,
        (adapter, replace(adapter, group="other", name="twin")),
        Matrix((EVIL,), (Fit(adapter.key, EVIL, False, EVIL),)),
        (Composition(EVIL, EVIL, EVIL, ((EVIL, EVIL),), ((EVIL, EVIL),), True, EVIL),),
        (Problem(EVIL, EVIL, EVIL),),
    )
