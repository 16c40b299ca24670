"""Embeddings: the table of the vocabulary as text that other programs read."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from pipeline.errors import DataError, printable
from pipeline.probes import Output, Probe
from pipeline.registry import PROBES, ComponentConfig

ROWS_AT_ONCE = 1024


def iter_word2vec(tokens: list[str], table: Tensor) -> Iterator[str]:
    """Yield the lines of word2vec's text format; numbers have the 9 digits that fp32 needs.

    table: (V, E). Raises DataError for a token with a space, which readers would cut there.
    """
    for token in tokens:
        if " " in token:
            raise DataError(
                f"vocabulary: token '{printable(token)}' holds a space, which word2vec's text "
                "format cannot express; adapt the model to a vocabulary without it"
            )
    rows, size = table.shape
    yield f"{rows} {size}\n"
    form = "%s" + " %.9g" * size + "\n"
    for start in range(0, rows, ROWS_AT_ONCE):
        part = tokens[start : start + ROWS_AT_ONCE]
        for token, values in zip(part, table[start : start + ROWS_AT_ONCE].tolist(), strict=True):
            yield form % (token, *values)


@PROBES.register("embeddings")
class EmbeddingsProbe(Probe):
    """The word embedding of every token of the vocabulary, in word2vec's text format.

    First line: number of tokens and of dimensions; then a token and its numbers a line.
    Source: the 2020 reference's extract_embedding.
    """

    class Config(ComponentConfig):
        """No options."""

    def run(self, output: Output) -> dict[str, Any]:
        """Write the table; return its size."""
        opened = self.request.open_model()
        table = opened.word_embedding
        output.write_text(iter_word2vec(opened.vocabulary.tokens, table))
        return {"tokens": table.shape[0], "dimensions": table.shape[1]}
