"""The next token of each row of a batch."""

from __future__ import annotations

import pytest
import torch
from adapterdock.serving.app.rows import GenerationRow, Piece, Sampling
from adapterdock.serving.app.sampler import RowSampler

TOKENS = torch.tensor([[5], [5]])


def rows(temperature: float) -> tuple[list[GenerationRow], list[list[Piece]]]:
    heard: list[list[Piece]] = [[], []]
    sampling = Sampling(temperature, 1.0, None, 3)
    made = [GenerationRow("generate", "a", one.append, (5,), sampling=sampling) for one in heard]
    return made, heard


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_a_row_with_scores_that_are_no_numbers_fails_alone(odd: float, temperature: float) -> None:
    made, heard = rows(temperature)
    RowSampler(made)(TOKENS, torch.tensor([[0.0, odd, 1.0], [0.0, -50.0, 50.0]]))
    assert [row.finished for row in made] == [True, False]
    assert heard[0][0].error is not None and heard[0][0].error.finding.code == "AD785"
    assert heard[1] == []


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_that_are_ruled_out_are_no_failure(temperature: float) -> None:
    made, _ = rows(temperature)
    ruled = torch.tensor([[0.0, -torch.inf, -torch.inf], [-torch.inf, 3.0, -torch.inf]])
    chosen = RowSampler(made)(TOKENS, ruled).argmax(dim=1).tolist()
    assert (chosen, [row.finished for row in made]) == ([0, 1], [False, False])
