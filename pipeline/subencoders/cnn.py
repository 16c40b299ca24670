"""Words as the largest responses of a convolution over their characters."""

from pydantic import Field
from torch import Tensor, nn

from pipeline.layers import CausalConvolution, pool
from pipeline.registry import SUBENCODERS, ComponentConfig


@SUBENCODERS.register("cnn")
class CnnSubencoder(nn.Module):
    """A table of characters, a convolution, ReLU, the largest value over the characters.

    Source: Kim et al. 2016 (arXiv:1508.06615), with one width; the 2020 reference's `cnn`.
    Differs: over a word's own characters (read_padding: true, over the padding too).
    """

    class Config(ComponentConfig):
        """Settings of the convolution."""

        kernel_size: int = Field(3, ge=1)
        """Characters the convolution sees: one and those before it."""
        read_padding: bool = False
        """Look for the largest value in the padding behind a word's characters too."""

    def __init__(self, config: Config, character_vocab_size: int, output_size: int):
        super().__init__()
        self.read_padding = config.read_padding
        self.embedding = nn.Embedding(character_vocab_size, output_size)
        self.convolution = CausalConvolution(output_size, output_size, config.kernel_size)

    def forward(self, char_ids: Tensor) -> Tensor:
        """(B, T, S) int64, 0 behind the last character -> (B, T, E)."""
        words = char_ids.flatten(0, 1)
        responses, _ = self.convolution(self.embedding(words))
        largest = pool(responses.relu(), (words > 0).sum(1), "max", self.read_padding)
        return largest.unflatten(0, char_ids.shape[:2])
