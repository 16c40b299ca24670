"""Convolutions over the present and the past."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import Activation, CausalConvolutions
from pipeline.registry import ENCODERS, ComponentConfig


@ENCODERS.register("cnn")
class CnnEncoder(nn.Module):
    """A stack of causal convolutions with an activation between them.

    Source: the 2020 reference's `cnn`. Differs: it has no activation (activation: none), so that
    the whole stack is one linear filter; and num_layers counts all convolutions, where the
    reference leaves out the first.
    """

    causal = True

    class Config(ComponentConfig):
        """Settings of the convolutions."""

        hidden_size: int = Field(512, ge=1)
        """D, numbers in a hidden state."""
        num_layers: int = Field(7, ge=1)
        """Convolutions, the first included."""
        kernel_size: int = Field(3, ge=1)
        """Tokens a convolution sees: one and those before it."""
        activation: Activation | Literal["none"] = "relu"
        """Between convolutions; none is the 2020 reference's."""

    def __init__(self, config: Config, input_size: int):
        super().__init__()
        self.output_size = config.hidden_size
        self.convolutions = CausalConvolutions(
            input_size,
            config.hidden_size,
            config.num_layers,
            config.kernel_size,
            config.activation,
        )

    def forward(self, emb: Tensor, segment_ids: Tensor) -> Tensor:
        """(B, T, E), (B, T) -> (B, T, D)."""
        return self.convolutions(emb)[0]

    def step(self, emb: Tensor, cache: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Return hidden states (B, T, D) of the next T positions, and the cache for later ones."""
        return self.convolutions(emb, cache)
