"""Cloze: what a masked language model puts into the gaps of a text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from pipeline.errors import DataError
from pipeline.probes import Line, Output, Probe, Request, check_lengths, join_tokens
from pipeline.registry import PROBES, ComponentConfig
from pipeline.text.inputs import join_pieces, keep_first
from pipeline.text.order import name_counter, uniform
from pipeline.text.rows import Ragged
from pipeline.text.tokenizers import Tokenizer
from pipeline.training.pretrained import PretrainedModel

MASK = "[MASK]"
# Gaps whose scores of all tokens are in memory at once.
GAPS_AT_ONCE = 256


@dataclass(frozen=True)
class Gaps:
    """Rows of ids in which the id of [MASK] marks a gap. lines: whose they are.

    answers: (G,) the ids that were hidden, in order, or None where nobody knows them.
    """

    lines: Sequence[Line]
    ids: Ragged
    answers: np.ndarray | None = None

    def by_row(self, mask: int) -> Ragged:
        """Return the numbers of the gaps of each row; gaps are counted over all rows."""
        positions = np.flatnonzero(self.ids.values == mask)
        return Ragged(np.arange(len(positions)), np.searchsorted(positions, self.ids.offsets))


class Fillings(NamedTuple):
    """What a model puts into G gaps."""

    ids: np.ndarray
    """(G, n) int64, the likeliest first."""
    probabilities: np.ndarray
    """(G, n) float32, among all tokens of the vocabulary."""
    ranks: np.ndarray | None
    """(G,) int64, place of the answer among all tokens, from 1."""


def read_gaps(lines: Sequence[Line], tokenizer: Tokenizer, where: str) -> Gaps:
    """Return texts with a gap for each [MASK] written in them. Raises DataError if there is none.

    What stands between gaps is cut into tokens by itself; blanks beside a gap are dropped.
    """
    for line in lines:
        if MASK not in line.text:
            raise DataError(
                f"{where}:{line.number}: no [MASK] in it; write it where a token is to be "
                "guessed, or use mask=random"
            )
    parts = [line.text.split(MASK) for line in lines]
    encoded = tokenizer.encode([part for row in parts for part in row])
    pieces = join_pieces([encoded, tokenizer.vocabulary.token_ids.mask])
    ends = np.cumsum([0, *map(len, parts)])
    rows = Ragged(pieces.values, pieces.offsets[ends])
    return Gaps(lines, keep_first(rows, rows.lengths - 1))


def hide_tokens(lines: Sequence[Line], tokenizer: Tokenizer, room: int | None, seed: int) -> Gaps:
    """Return texts with one known token of each hidden, chosen by seed and line number.

    room: tokens to which texts are cut. Lines without any known token are left out.
    """
    special = tokenizer.vocabulary.token_ids
    encoded = tokenizer.encode([line.text for line in lines])
    if room is not None:
        encoded = keep_first(encoded, np.minimum(encoded.lengths, room))
    values = np.where(encoded.values == special.mask, special.unk, encoded.values)
    known = np.flatnonzero(values != special.unk)
    firsts = np.searchsorted(known, encoded.offsets)
    counts = np.diff(firsts)
    kept = np.flatnonzero(counts)
    chosen = [lines[row] for row in kept.tolist()]
    numbers = np.array([line.number for line in chosen], np.int64)
    draws = uniform(seed, name_counter("cloze"), numbers)
    hidden = known[firsts[kept] + (draws * counts[kept]).astype(np.int64)]
    answers = values[hidden]
    values[hidden] = special.mask
    rows = Ragged(values, encoded.offsets).take(kept)
    return Gaps(chosen, rows, answers)


@torch.no_grad()
def fill_gaps(opened: PretrainedModel, gaps: Gaps, count: int, special_tokens: bool) -> Fillings:
    """Return the `count` likeliest tokens of each gap; needs a model with the target mlm."""
    target = opened.target("mlm")
    mask = opened.vocabulary.token_ids.mask
    by_row = gaps.by_row(mask)
    total, count = len(by_row.values), min(count, opened.vocabulary.token_ids.vocab_size)
    ids = np.zeros((total, count), np.int64)
    probabilities = np.zeros((total, count), np.float32)
    ranks = None if gaps.answers is None else np.zeros(total, np.int64)
    for part, batch, (hidden,) in opened.iter_states(opened.frame(gaps.ids, special_tokens)):
        states = hidden[batch["token_ids"] == mask]
        numbers = by_row.take(part).values
        for start in range(0, len(numbers), GAPS_AT_ONCE):
            chosen = numbers[start : start + GAPS_AT_ONCE]
            logits = target.logits(states[start : start + GAPS_AT_ONCE]).float()
            best, tokens = logits.topk(count)
            ids[chosen] = tokens.cpu().numpy()
            probabilities[chosen] = (best - logits.logsumexp(-1, keepdim=True)).exp().cpu().numpy()
            if ranks is not None and gaps.answers is not None:
                answers = torch.from_numpy(gaps.answers[chosen]).long().to(logits.device)
                scores = logits.gather(1, answers[:, None])
                ranks[chosen] = (logits > scores).sum(1).cpu().numpy() + 1
    return Fillings(ids, probabilities, ranks)


def commonest_tokens(request: Request, corpus: Path, tokenizer: Tokenizer, count: int) -> set[int]:
    """Return the ids of the `count` tokens that a text file holds most often; [UNK] is none."""
    totals = np.zeros(tokenizer.vocabulary.token_ids.vocab_size, np.int64)
    for window in Request(None, None, corpus, request.device).iter_windows():
        encoded = tokenizer.encode([line.text for line in window])
        totals += np.bincount(encoded.values, minlength=len(totals))
    totals[tokenizer.vocabulary.token_ids.unk] = -1
    return set(np.argsort(-totals, kind="stable")[:count].tolist())


@PROBES.register("cloze")
class ClozeProbe(Probe):
    """The likeliest tokens for each gap in a text, with their probabilities.

    A row for each gap: line, mask (which gap of the line), text, predictions. The gaps of a line
    are filled independently of one another. With mask=random also answer and rank, its place among
    all tokens; the books then hold hit_rate, the share of answers among the `top` likeliest; texts
    are cut to the model's positions.
    Source: the 2020 reference's cloze_test. Differs: seeded; any number of gaps; [UNK] is never
    the answer; probabilities.
    """

    reads = "texts, one a line, with [MASK] where a token is to be guessed"
    needs = "mlm"
    files = ("corpus",)

    class Config(ComponentConfig):
        """Options of the cloze."""

        top: int = Field(10, ge=1)
        """Tokens to show for each gap."""
        mask: Literal["marked", "random"] = "marked"
        """marked: gaps are written [MASK]; random: one known token of each line becomes a gap."""
        seed: int = Field(7, ge=0)
        """Chooses the gaps of mask=random, together with the line number."""
        special_tokens: bool | None = None
        """Put [CLS] before and [SEP] behind each text; absent: as the model was trained."""
        corpus: str | None = None
        """Text file whose commonest tokens are the guess beside the model's, with mask=random."""

    config: Config

    def __init__(self, config: Config, request: Request):
        super().__init__(config, request)
        self.opened = request.open_model()
        self.opened.target(self.needs)
        self.special_tokens = self.opened.wants_special_tokens(config.special_tokens)

    def run(self, output: Output) -> dict[str, Any]:
        """Write a row for each gap; return the books and, with mask=random, the scores."""
        config, tokenizer = self.config, self.opened.tokenizer
        scored = config.mask == "random"
        guess: set[int] = set()
        if scored and config.corpus:
            guess = commonest_tokens(self.request, Path(config.corpus), tokenizer, config.top)
        counts = dict.fromkeys(["lines", "skipped", "gaps", "hits", "unigram_hits"], 0)
        output.write_rows(self._iter_rows(counts, guess))
        books: dict[str, Any] = {key: counts[key] for key in ("lines", "skipped", "gaps")}
        if scored:
            books["top"] = config.top
            books["hit_rate"] = counts["hits"] / max(1, counts["gaps"])
        if guess:
            books["unigram_hit_rate"] = counts["unigram_hits"] / max(1, counts["gaps"])
        return books

    def _iter_rows(self, counts: dict[str, int], guess: set[int]) -> Iterator[dict[str, Any]]:
        for window in self.request.iter_windows():
            gaps = self._gaps([line for line in window if line.text.strip()])
            counts["lines"] += len(window)
            counts["skipped"] += len(window) - len(gaps.lines)
            if not gaps.lines:
                continue
            fillings = fill_gaps(self.opened, gaps, self.config.top, self.special_tokens)
            counts["gaps"] += len(fillings.ids)
            if gaps.answers is not None and fillings.ranks is not None:
                counts["hits"] += int((fillings.ranks <= self.config.top).sum())
                counts["unigram_hits"] += sum(a in guess for a in gaps.answers.tolist())
            yield from self._describe(gaps, fillings)

    def _gaps(self, lines: list[Line]) -> Gaps:
        tokenizer, room = self.opened.tokenizer, self.opened.room(self.special_tokens)
        if self.config.mask == "random":
            return hide_tokens(lines, tokenizer, room, self.config.seed)
        gaps = read_gaps(lines, tokenizer, self.request.where)
        check_lengths(gaps.ids, lines, room, self.request.where)
        return gaps

    def _describe(self, gaps: Gaps, fillings: Fillings) -> Iterator[dict[str, Any]]:
        tokens = self.opened.vocabulary.tokens
        by_row = gaps.by_row(self.opened.vocabulary.token_ids.mask)
        for row, line in enumerate(gaps.lines):
            ids = gaps.ids.values[slice(*gaps.ids.offsets[row : row + 2])].tolist()
            text = join_tokens([tokens[i] for i in ids], self.opened.metadata["tokenizer"])
            for mask, gap in enumerate(by_row.values[slice(*by_row.offsets[row : row + 2])], 1):
                found = {"line": line.number, "mask": mask, "text": text}
                if gaps.answers is not None and fillings.ranks is not None:
                    found["answer"] = tokens[gaps.answers[gap]]
                    found["rank"] = int(fillings.ranks[gap])
                likely = zip(fillings.ids[gap], fillings.probabilities[gap].tolist(), strict=True)
                found["predictions"] = {tokens[i]: float(f"{p:.6g}") for i, p in likely}
                yield found
