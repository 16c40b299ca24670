"""Neighbours: which tokens a model takes for alike, by themselves or in a sentence."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from pipeline.errors import DataError, printable
from pipeline.probes import Layer, Line, Output, Probe, Request, check_lengths, find_layer
from pipeline.registry import PROBES, ComponentConfig
from pipeline.text.rows import Ragged
from pipeline.text.vocabulary import SPECIAL_TOKENS
from pipeline.training.pretrained import PretrainedModel


def nearest_tokens(
    queries: Tensor, own: np.ndarray, table: Tensor, candidates: np.ndarray, count: int
) -> list[dict[int, float]]:
    """Return, for each query, id -> cosine of the nearest candidates, the largest first.

    queries: (Q, D). own: (Q,) the queries' ids, which are no neighbours of theirs. table: (C, D),
    the vectors of candidates: (C,) ids.
    """
    cosines = functional.normalize(queries, dim=-1) @ functional.normalize(table, dim=-1).T
    best, places = cosines.topk(min(count + 1, len(candidates)))
    found = []
    for query, values, ids in zip(
        own, best.tolist(), candidates[places.cpu().numpy()], strict=True
    ):
        nearest = [(int(i), value) for i, value in zip(ids, values, strict=True) if i != query]
        found.append(dict(nearest[:count]))
    return found


@torch.no_grad()
def states_in_place(
    opened: PretrainedModel, row: np.ndarray, position: int, tokens: np.ndarray, layer: int
) -> Tensor:
    """Return the hidden states (C, D) of a layer at a position, with each token (C,) put there.

    row: (T,) ids with their special tokens.
    """
    rows = np.tile(row, (len(tokens), 1))
    rows[:, position] = tokens
    ragged = Ragged(rows.reshape(-1), np.arange(len(tokens) + 1) * len(row))
    batches = opened.iter_states(ragged, [layer])  # rows of one length come in their order
    # Cloned, so that the other positions can be forgotten.
    return torch.cat([state[:, position].clone() for _, _, (state,) in batches])


@PROBES.register("neighbours")
class NeighboursProbe(Probe):
    """The tokens nearest to a word by cosine, by themselves or in a sentence.

    Without a sentence rows of the word embedding are compared. With context=true each candidate
    takes the place of the word's first occurrence, the whole sentence is encoded, and the hidden
    states there are compared with the word's own.
    Source: the 2020 reference's topn_words_indep and topn_words_dep. Differs: the word itself is
    left out by name, not as the best hit; all layers are used unless `layer` says otherwise (the
    reference used the first four of any model); every architecture, embedding and tokenizer.
    """

    reads = "words, one a line; with context=true: sentence, tab, word"
    files = ("candidates",)

    class Config(ComponentConfig):
        """Options of the neighbours."""

        top: int = Field(20, ge=1)
        """Neighbours of each word."""
        context: bool = False
        """Compare hidden states in a sentence instead of word embeddings."""
        layer: Layer = "last"
        """Whose hidden states are compared with context=true: 0 is the embedding, 1 the first
        layer; or last."""
        candidates: str | None = None
        """File of tokens that may be neighbours, one a line; absent: the whole vocabulary."""
        special_tokens: bool | None = None
        """Put [CLS] before and [SEP] behind each sentence; absent: as the model was trained."""

    config: Config

    def __init__(self, config: Config, request: Request):
        super().__init__(config, request)
        self.opened = request.open_model()
        self.layer = find_layer(config.layer, len(self.opened.layer_sizes()))
        self.special_tokens = self.opened.wants_special_tokens(config.special_tokens)
        self.candidates = self._candidates()

    def _candidates(self) -> np.ndarray:
        vocabulary = self.opened.vocabulary
        if self.config.candidates is None:
            special = {vocabulary.ids[token] for token in SPECIAL_TOKENS}
            found = [i for i in range(len(vocabulary.tokens)) if i not in special]
        else:
            file = Request(None, None, Path(self.config.candidates), self.opened.device)
            words = [line for line in file.iter_lines() if line.text.strip()]
            found = [self._token(line.text, line, file.where) for line in words]
        if len(set(found)) < 2:
            raise DataError(f"candidates: {len(set(found))} tokens; give at least 2")
        return np.array(sorted(set(found)), np.int64)

    def _token(self, word: str, line: Line, where: str) -> int:
        """Return the id of a word that is one token. Raises DataError."""
        token = self.opened.token_of(word.strip())
        if token is None:
            raise DataError(
                f"{where}:{line.number}: '{printable(word.strip(), 30)}' is not one token of the "
                "vocabulary"
            )
        return token

    def run(self, output: Output) -> dict[str, Any]:
        """Write a row for each word; return the books."""
        books = {"lines": 0, "skipped": 0, "candidates": len(self.candidates)}
        output.write_rows(self._iter_rows(books))
        return books

    def _iter_rows(self, books: dict[str, int]) -> Iterator[dict[str, Any]]:
        for window in self.request.iter_windows():
            lines = [line for line in window if line.text.strip()]
            books["lines"] += len(window)
            books["skipped"] += len(window) - len(lines)
            if self.config.context:
                yield from map(self._in_sentence, lines)
            elif lines:
                yield from self._by_themselves(lines)

    def _by_themselves(self, lines: list[Line]) -> Iterator[dict[str, Any]]:
        own = np.array([self._token(line.text, line, self.request.where) for line in lines])
        table = self.opened.word_embedding
        found = nearest_tokens(
            table[own], own, table[self.candidates], self.candidates, self.config.top
        )
        for line, neighbours in zip(lines, found, strict=True):
            word = line.text.strip()
            yield {"line": line.number, "word": word, "neighbours": self._named(neighbours)}

    def _in_sentence(self, line: Line) -> dict[str, Any]:
        where = f"{self.request.where}:{line.number}"
        sentence, tab, word = line.text.rpartition("\t")
        if not tab or not sentence.strip():
            raise DataError(f"{where}: no tab in it; write the sentence, a tab, and the word")
        own = self._token(word, line, self.request.where)
        ids = self.opened.tokenizer.encode([sentence])
        check_lengths(ids, [line], self.opened.room(self.special_tokens), self.request.where)
        row = self.opened.frame(ids, self.special_tokens).values
        places = np.flatnonzero(row == own)
        if not len(places):
            raise DataError(f"{where}: '{printable(word, 30)}' is not a token of the sentence")
        tokens = np.append(self.candidates, own)
        states = states_in_place(self.opened, row, int(places[0]), tokens, self.layer)
        (found,) = nearest_tokens(
            states[-1:], tokens[-1:], states[:-1], self.candidates, self.config.top
        )
        return {
            "line": line.number,
            "sentence": sentence,
            "word": word,
            "neighbours": self._named(found),
        }

    def _named(self, neighbours: dict[int, float]) -> dict[str, float]:
        tokens = self.opened.vocabulary.tokens
        return {tokens[i]: round(cosine, 4) for i, cosine in neighbours.items()}
