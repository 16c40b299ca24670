"""Gated convolutions over the present and the past."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import CausalConvolution, require_equal_sizes
from pipeline.registry import ENCODERS, ComponentConfig


class GatedConvolution(nn.Module):
    """A causal convolution, multiplied by the sigmoid of another."""

    def __init__(self, size: int, kernel_size: int):
        super().__init__()
        self.convolution = CausalConvolution(size, size, kernel_size)
        self.gate = CausalConvolution(size, size, kernel_size)

    def forward(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return ((B, T, D), the last frames seen); arguments as in CausalConvolution."""
        values, seen = self.convolution(x, past)
        return values * self.gate(x, past)[0].sigmoid(), seen


@ENCODERS.register("gated_cnn")
class GatedCnnEncoder(nn.Module):
    """A stack of gated causal convolutions with residuals over blocks of layers.

    Source: Dauphin et al. 2017 (arXiv:1612.08083). Differs with residual: between, which is the
    2020 reference's: it adds after the layers at which no block ends (blocks of two: no change).
    """

    causal = True

    class Config(ComponentConfig):
        """Settings of the gated convolutions."""

        hidden_size: int = Field(512, ge=1)
        """D, numbers in a hidden state; the embedding's size must be equal."""
        num_layers: int = Field(6, ge=1)
        """Layers, each of a convolution and a gate."""
        kernel_size: int = Field(3, ge=1)
        """Tokens a convolution sees: one and those before it."""
        block_size: int = Field(2, ge=1)
        """Layers in a block."""
        residual: Literal["block", "between"] = "block"
        """block: the input of each block is added to its output; between: see above."""

    def __init__(self, config: Config, input_size: int):
        super().__init__()
        require_equal_sizes("gated_cnn", input_size, config.hidden_size)
        self.output_size = config.hidden_size
        self.layers = nn.ModuleList(
            GatedConvolution(config.hidden_size, config.kernel_size)
            for _ in range(config.num_layers)
        )
        count, block = config.num_layers, config.block_size
        if config.residual == "block":
            self.adding = {number for number in range(count) if (number + 1) % block == 0}
        else:
            self.adding = {number for number in range(1, count) if number % block}

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, D), (B, T) -> (B, T, D)."""
        return self.step(emb, None)[0]

    def step(self, emb: Tensor, cache: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Return hidden states (B, T, D) of the next T positions, and the cache for later ones."""
        x = skipped = emb
        seen = []
        for number, layer in enumerate(self.layers):
            x, last = layer(x, None if cache is None else cache[number])
            seen.append(last)
            if number in self.adding:
                x = skipped = x + skipped
        return x, seen
