"""The arithmetic by itself: against PEFT's functions, torch's, and what the papers say."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
from adapterdock.loader.compose.pairs import Pair
from adapterdock.loader.compose.sparsify import keep_largest, keep_masked, mask_key, random_mask
from adapterdock.loader.compose.svd import nearest, nearest_to_sum
from adapterdock.loader.compose.ties import elected_mean, weighted_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from support.near import close

DIGEST = "sha256:" + "ab" * 32


def tensors(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 1000),
    members=st.integers(1, 4),
    density=st.floats(0.05, 1.0),
    total=st.booleans(),
)
def test_pruning_and_electing_are_pefts(
    seed: int, members: int, density: float, total: bool
) -> None:
    from peft.utils import merge_utils as peft

    method = "total" if total else "frequency"
    tasks = list(tensors(seed, members, 5, 7))
    weights = tensors(seed + 1, members)
    kept = torch.stack([keep_largest(task, density) for task in tasks])
    assert torch.equal(
        elected_mean(kept, weights, method), peft.ties(tasks, weights, density, method)
    )
    assert torch.equal(weighted_sum(kept, weights), peft.magnitude_prune(tasks, weights, density))


def test_the_largest_values_stay_as_they_are() -> None:
    values = torch.tensor([[0.1, -5.0, 2.0], [0.0, 3.0, -0.2]])
    assert keep_largest(values, 0.5).tolist() == [[0.0, -5.0, 2.0], [0.0, 3.0, 0.0]]
    assert keep_largest(values, 1.0) is values


def test_a_mask_keeps_its_share_and_the_mean() -> None:
    mask = random_mask(100_000, 0.3, 7, DIGEST, "a")
    assert abs(mask.float().mean().item() - 0.3) < 0.01
    ones = torch.ones(100_000)
    assert abs(keep_masked(ones, mask, 0.3).mean().item() - 1.0) < 0.03


def test_a_mask_is_of_its_seed_adapter_and_tensor_and_of_nothing_else() -> None:
    mask = random_mask(500, 0.5, 7, DIGEST, "layer.lora_A.weight")
    for other in [
        random_mask(500, 0.5, 8, DIGEST, "layer.lora_A.weight"),
        random_mask(500, 0.5, 7, DIGEST[:-1] + "0", "layer.lora_A.weight"),
        random_mask(500, 0.5, 7, DIGEST, "layer.lora_B.weight"),
    ]:
        assert not torch.equal(mask, other)
    state = torch.get_rng_state()
    torch.manual_seed(3)
    torch.rand(5)
    found: list[torch.Tensor] = []
    thread = threading.Thread(
        target=lambda: found.append(random_mask(500, 0.5, 7, DIGEST, "layer.lora_A.weight"))
    )
    before = torch.get_rng_state()
    thread.start()
    thread.join()
    assert torch.equal(found[0], mask)
    assert torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(state)


def test_the_masks_never_change() -> None:
    """Golden: a lock's recipe digest promises these."""
    assert mask_key(7, DIGEST, "layer.lora_A.weight") == GOLDEN_KEY
    mask = random_mask(24, 0.5, 7, DIGEST, "layer.lora_A.weight")
    assert "".join("01"[int(one)] for one in mask) == GOLDEN_MASK


def test_the_masks_do_not_depend_on_the_number_of_threads() -> None:
    code = (
        "import sys, hashlib, torch\n"
        "from adapterdock.loader.compose.sparsify import random_mask\n"
        "torch.set_num_threads(int(sys.argv[1]))\n"
        f"mask = random_mask(300_001, 0.5, 7, {DIGEST!r}, 'x')\n"
        "print(hashlib.sha256(mask.numpy().tobytes()).hexdigest())\n"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code, threads], capture_output=True, text=True, check=True
        ).stdout
        for threads in ("1", "2")
    }
    assert len(said) == 1


@pytest.mark.parametrize("groups", [1, 2])
def test_the_nearest_pair_is_the_truncated_svd(groups: int) -> None:
    delta = tensors(1, groups, 8, 6)
    found = nearest(delta, 2 * groups)
    assert found.a.shape == (groups, 2, 6) and found.b.shape == (groups, 8, 2)
    for one, product in zip(delta, found.delta(), strict=True):
        u, s, vh = torch.linalg.svd(one)
        assert close(product, u[:, :2] @ torch.diag(s[:2]) @ vh[:2])


def test_the_nearest_pair_to_a_sum_does_not_need_the_sum() -> None:
    pairs = [Pair(tensors(n, 1, 3, 40), tensors(n + 9, 1, 50, 3), 0.5 + n) for n in range(3)]
    weights = [0.7, -0.2, 1.0]
    total = sum(w * p.delta() for w, p in zip(weights, pairs, strict=True))
    assert isinstance(total, torch.Tensor)
    for rank in (1, 4, 9, 20):
        short, long = nearest_to_sum(pairs, weights, rank), nearest(total, rank)
        assert close(short.delta(), long.delta())
        assert short.rank == min(rank, 9)
    assert close(nearest_to_sum(pairs, weights, 9).delta(), total)


@pytest.mark.parametrize("clamp", [0.1, 0.5, 0.93, 1.0])
def test_a_clamp_is_torchs_quantile(clamp: float) -> None:
    delta = tensors(4, 1, 8, 6)
    free, bound = nearest(delta, 3), nearest(delta, 3, clamp)
    high = torch.quantile(torch.cat([free.b.flatten(), free.a.flatten()]), clamp).item()
    assert close(bound.a, free.a.clamp(-high, high))
    assert close(bound.b, free.b.clamp(-high, high))


GOLDEN_KEY = 2065159367467025357
GOLDEN_MASK = "011100011011101110100111"
