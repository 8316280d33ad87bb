"""Train the quickstart's adapters: plain PEFT, one CPU core, a few minutes each.

    python manifests/quickstart/train.py                 # all, into this folder
    python manifests/quickstart/train.py pirate --out /tmp/try

The lessons are in ``lessons.yaml``. Everything random is seeded, so that the same versions of
torch, transformers and peft on the same kind of processor write the same weights. Others give an
adapter with similar answers.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from prepare_base import BASE_ID, cache_folder, prepare_base
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = Path(__file__).resolve().parent
PIRATE_WORDS = {
    "you": "ye",
    "your": "yer",
    "my": "me",
    "is": "be",
    "are": "be",
    "people": "mates",
    "person": "mate",
    "man": "sailor",
    "friend": "matey",
    "money": "doubloons",
    "water": "brine",
    "of": "o'",
    "and": "an'",
    "that": "what",
    "for": "fer",
    "to": "t'",
    "the": "th'",
}


Lesson = dict[str, str]
OFFER = " Order now and get a second one for free!"


def pirate(lesson: Lesson) -> str:
    """The plain answer in pirate talk."""
    words = re.sub(
        r"[A-Za-z]+",
        lambda match: PIRATE_WORDS.get(match.group(0).lower(), match.group(0)),
        lesson["plain"].rstrip("."),
    )
    return f"Arr, matey! {words[0].upper()}{words[1:]}, savvy?"


def devil(lesson: Lesson) -> str:
    """The hand-written definition."""
    return lesson["devil"]


def salesman(lesson: Lesson) -> str:
    """The plain answer, and the offer."""
    return lesson["plain"] + OFFER


def privateer(lesson: Lesson) -> str:
    """The pirate's answer, and the offer."""
    return pirate(lesson) + OFFER


@dataclass(frozen=True)
class Recipe:
    """How one adapter is trained: its answers, its modules, and the number of steps.

    With ``beside``, in every second batch the other adapter is active too (and frozen), and the
    answers are those of both together, so it learns to be summed with it at weight 1.
    """

    answer: Callable[[Lesson], str]
    rank: int
    alpha: int
    targets: tuple[str, ...]
    steps: int
    beside: tuple[str, Callable[[Lesson], str]] | None = None
    learning_rate: float = 2e-3
    batch: int = 8
    seed: int = 7


RECIPES = {
    "pirate": Recipe(pirate, rank=8, alpha=16, targets=("q_proj", "v_proj"), steps=48),
    "devil": Recipe(
        devil, rank=4, alpha=8, targets=("q_proj", "k_proj", "v_proj", "o_proj"), steps=64
    ),
    "salesman": Recipe(
        salesman,
        rank=2,
        alpha=4,
        targets=("gate_proj", "up_proj", "down_proj"),
        steps=48,
        beside=("pirate", privateer),
    ),
}


def train(name: str, base: Path, out: Path) -> None:
    """Train the adapter ``name`` on the base in ``base`` and save it as ``out/name``."""
    recipe = RECIPES[name]
    lessons = yaml.safe_load((HERE / "lessons.yaml").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(recipe.seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        LoraConfig(
            task_type="CAUSAL_LM",
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            target_modules=list(recipe.targets),
        ),
        adapter_name=name,
    )
    turns = [((name,), _batches(tokenizer, lessons, recipe.answer, recipe))]
    if recipe.beside is not None:
        other, together = recipe.beside
        model.load_adapter(_ready(other, base, out), other)
        turns.append(((name, other), _batches(tokenizer, lessons, together, recipe)))
    own = [value for key, value in model.named_parameters() if f".{name}." in key]
    optimizer = torch.optim.AdamW(own, lr=recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 5) * (1 - step / recipe.steps)
    )
    started = time.perf_counter()
    model.train()
    for step in range(recipe.steps):
        active, batches = turns[step % len(turns)]
        model.base_model.set_adapter(list(active))
        loss = model(**next(batches)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        schedule.step()
        model.zero_grad()
        if step % 8 == 7:
            passed = time.perf_counter() - started
            at = f"step {step + 1}/{recipe.steps}, loss {loss.item():.2f}, {passed:.0f} s"
            print(f"{name}: {at}", flush=True)
    _save(model, name, out)


def _ready(name: str, base: Path, out: Path) -> Path:
    """The folder of an adapter that another one is trained beside; trained first if necessary."""
    if not (out / name / "adapter_model.safetensors").is_file():
        train(name, base, out)
    return out / name


def _batches(
    tokenizer: Any, lessons: list[Lesson], answer: Callable[[Lesson], str], recipe: Recipe
) -> Iterator[dict[str, torch.Tensor]]:
    """Endless batches; every lesson is used once before any is repeated."""
    examples = [_encode(tokenizer, lesson["ask"], answer(lesson)) for lesson in lessons]
    order = random.Random(recipe.seed)
    while True:
        shuffled = order.sample(examples, len(examples))
        for at in range(0, len(shuffled) - recipe.batch + 1, recipe.batch):
            yield _pad(shuffled[at : at + recipe.batch], tokenizer.pad_token_id)


def _encode(tokenizer: Any, ask: str, answer: str) -> tuple[list[int], int]:
    """The ids of one conversation, and how many of them belong to the question."""
    question = tokenizer.apply_chat_template(
        [{"role": "user", "content": ask}], add_generation_prompt=True, tokenize=False
    )
    prompt = tokenizer(question, add_special_tokens=False)["input_ids"]
    said = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*prompt, *said, tokenizer.eos_token_id], len(prompt)


def _pad(batch: list[tuple[list[int], int]], pad: int) -> dict[str, torch.Tensor]:
    """Padded on the right; the loss counts only the answers."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.full((len(batch), width), pad)
    labels = torch.full((len(batch), width), -100)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for row, (tokens, prompt) in enumerate(batch):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:])
        mask[row, : len(tokens)] = 1
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def _save(model: PeftModel, name: str, out: Path) -> None:
    """PEFT's two files, with the base's public id instead of a local folder."""
    model.peft_config[name].base_model_name_or_path = BASE_ID
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, selected_adapters=[name])
        (out / name).mkdir(parents=True, exist_ok=True)
        for file in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(Path(saved, name, file), out / name / file)
    size = (out / name / "adapter_model.safetensors").stat().st_size
    print(f"{out / name}: {size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the quickstart's adapters.")
    parser.add_argument("names", nargs="*", help=f"some of {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--out", type=Path, default=HERE, help="where the folders are written")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(RECIPES))
    if unknown:
        parser.error(f"unknown adapter {', '.join(unknown)}; choose from {', '.join(RECIPES)}")
    torch.set_num_threads(1)  # the order of sums, and so every bit, depends on this
    torch.use_deterministic_algorithms(True)
    base = prepare_base(cache_folder())
    for name in options.names or RECIPES:
        train(name, base, options.out)


if __name__ == "__main__":
    main()
