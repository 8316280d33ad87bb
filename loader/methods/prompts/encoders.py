"""Small networks that compute virtual tokens, and are trained in place of them.

PEFT trains p-tuning (https://arxiv.org/abs/2103.10385) through an encoder, and prefix tuning with
``prefix_projection`` (https://arxiv.org/abs/2101.00190) through a projection; it saves their
output, so the training of a loaded file continues without them. Follows PEFT 0.21,
``tuners/p_tuning/model.py`` and ``tuners/prefix_tuning/model.py``, and their names of the parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..new_site import initial_linear


class Encoder(nn.Module):
    """``encoder()`` returns the virtual tokens as they are saved."""

    embedding: nn.Embedding

    def output(self, state: Mapping[str, Tensor]) -> Tensor:
        """The virtual tokens in inference, with these values of its parameters."""
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                return cast(Tensor, functional_call(self, dict(state), ()))
        finally:
            self.train(training)


class PromptEncoder(Encoder):
    """P-tuning's: ``embedding`` (tokens, token_dim) through an MLP, or an LSTM and an MLP, to
    (tokens, token_dim)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, hidden = config["token_dim"], config["encoder_hidden_size"]
        count = config["num_virtual_tokens"] * config["num_transformer_submodules"]
        self.embedding = nn.Embedding(count, width)
        if config.get("encoder_reparameterization_type", "MLP") == "LSTM":
            self.lstm_head = nn.LSTM(
                width,
                hidden,
                num_layers=config.get("encoder_num_layers") or 2,
                dropout=config.get("encoder_dropout") or 0.0,
                bidirectional=True,
                batch_first=True,
            )
            parts = [nn.Linear(2 * hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, width)]
        else:
            parts = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()]
            parts.append(nn.Linear(hidden, width))
        self.mlp_head = nn.Sequential(*parts)

    def forward(self) -> Tensor:
        tokens = self.embedding.weight
        if hasattr(self, "lstm_head"):
            tokens = self.lstm_head(tokens.unsqueeze(0))[0].squeeze(0)
        return self.mlp_head(tokens)


class PrefixEncoder(Encoder):
    """Prefix tuning's projection: ``embedding`` (tokens, token_dim) to (tokens, layers * 2 *
    token_dim)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, hidden = config["token_dim"], config["encoder_hidden_size"]
        self.embedding = nn.Embedding(config["num_virtual_tokens"], width)
        self.transform = nn.Sequential(
            nn.Linear(width, hidden), nn.Tanh(), nn.Linear(hidden, config["num_layers"] * 2 * width)
        )

    def forward(self) -> Tensor:
        return self.transform(self.embedding.weight)


def initial_encoder(
    kind: type[PromptEncoder | PrefixEncoder],
    config: Mapping[str, Any],
    generator: torch.Generator | None,
) -> Encoder:
    """An encoder with torch's first values, drawn from ``generator`` in the order of its parts."""
    with torch.device("meta"):
        encoder = kind(config)
    encoder.to_empty(device="cpu")
    for part in encoder.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, generator=generator)
        elif isinstance(part, nn.Linear):
            initial_linear(part.weight, generator)
            within = 1 / math.sqrt(part.in_features)
            nn.init.uniform_(part.bias, -within, within, generator=generator)
        elif isinstance(part, nn.LSTM):
            within = 1 / math.sqrt(part.hidden_size)
            for weight in part.parameters():
                nn.init.uniform_(weight, -within, within, generator=generator)
    if isinstance(encoder, PrefixEncoder) and config.get("init_weights") == "zero":
        last = cast(nn.Linear, encoder.transform[-1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return encoder
