"""Generation: a language model continues prompts, token by token."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.errors import ConfigError, DataError, printable
from pipeline.probes import Line, Output, Probe, Request, check_lengths, join_tokens
from pipeline.registry import PROBES, ComponentConfig
from pipeline.text.inputs import join_pieces
from pipeline.text.order import name_counter, uniform
from pipeline.text.rows import Ragged
from pipeline.training.pretrained import PretrainedModel

# Prompts of like length that grow together.
PROMPTS_AT_ONCE = 64
NUCLEUS_AT_FIRST = 128


class SamplingConfig(ComponentConfig):
    """How the next token is chosen from its scores."""

    temperature: float = Field(1.0, ge=0)
    """Divides the scores: below 1 safer, above 1 wilder; 0 always takes the likeliest (greedy)."""
    top_k: int = Field(0, ge=0)
    """Choose among this many likeliest tokens; 0: among all."""
    top_p: float = Field(0.6, gt=0, le=1)
    """Choose among the likeliest tokens that together have this probability; 1: among all."""
    repetition_penalty: float = Field(1.0, ge=1)
    """Makes tokens of the text so far less likely: positive scores are divided by it, negative
    ones multiplied; 1: off."""
    forbidden: list[str] = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"]
    """Tokens that are never chosen."""


def choose(
    logits: Tensor, used: Tensor, forbidden: list[int], draws: Tensor, config: SamplingConfig
) -> Tensor:
    """Return the next token of each text, (B,) int64.

    logits: (B, V), changed in place. used: (B, V) bool, tokens that the text holds. draws: (B,) in
    [0, 1), one for each text: the place in the distribution of what is open to choice.
    Source: Keskar et al. 2019, section 4.1 (penalty); Fan et al. 2018 (top k); Holtzman et al. 2020
    (top p). They apply in this order: penalty, temperature, top k, top p.
    """
    logits[:, forbidden] = -torch.inf
    if config.repetition_penalty != 1:
        penalty = config.repetition_penalty
        penalized = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits = torch.where(used, penalized, logits)
    if config.temperature == 0:
        return logits.argmax(-1)
    scores, tokens = logits / config.temperature, None
    if 0 < config.top_k < logits.shape[1]:
        scores, tokens = scores.topk(config.top_k)
    probabilities = scores.double().softmax(-1)
    if config.top_p < 1:
        probabilities, places = _nucleus(probabilities, config.top_p)
        tokens = places if tokens is None else tokens.gather(1, places)
    chosen = _draw(probabilities, draws)
    return chosen if tokens is None else tokens.gather(1, chosen[:, None])[:, 0]


def _nucleus(probabilities: Tensor, top_p: float) -> tuple[Tensor, Tensor]:
    """Return (probabilities, places) of the largest that together reach top_p, the rest 0; (B, n).

    The largest few nearly always do; sorting all of a vocabulary takes longer than small models.
    """
    count = NUCLEUS_AT_FIRST
    while True:
        best, places = probabilities.topk(min(count, probabilities.shape[1]))
        before = best.cumsum(-1) - best
        if count >= probabilities.shape[1] or bool((before[:, -1] >= top_p).all()):
            return best.masked_fill(before >= top_p, 0.0), places
        count *= 16


def _draw(weights: Tensor, draws: Tensor) -> Tensor:
    """Return the place of each draw in the running sum of weights (B, n)."""
    sums = weights.cumsum(-1)
    places = torch.searchsorted(sums, draws[:, None] * sums[:, -1:], right=True)[:, 0]
    # A sum may round so that the draw falls behind the last weight that counts.
    last = weights.shape[1] - 1 - (weights > 0).int().flip(-1).argmax(-1)
    return places.minimum(last)


class GenerationConfig(SamplingConfig):
    """How prompts are continued."""

    new_tokens: int = Field(128, ge=1)
    """Most tokens to add to a prompt."""
    samples: int = Field(1, ge=1)
    """Continuations of each prompt."""
    stop: list[str] = ["[SEP]"]
    """Tokens that end a continuation; they are not shown."""
    seed: int = Field(7, ge=0)
    """Seed of the draws."""
    special_tokens: bool | None = None
    """Put [CLS] before each prompt; absent: as the model was trained."""
    cache: bool = True
    """Keep what was computed of earlier positions, where the encoder can; the tokens are the same
    without."""


@dataclass(frozen=True)
class Continuation:
    """What was added to a prompt. end: stop (a stop token came), length, or positions (no room)."""

    ids: list[int]
    end: str


class Generator:
    """Continues prompts with a model that has the target lm."""

    def __init__(self, opened: PretrainedModel, config: GenerationConfig):
        self.opened, self.config = opened, config
        self.target = opened.target("lm")
        self.special_tokens = opened.wants_special_tokens(config.special_tokens)
        stop = self._ids("stop", config.stop)
        self.stop = torch.tensor(stop, dtype=torch.int64, device=opened.device)
        self.forbidden = self._ids("forbidden", config.forbidden)
        self.cached = config.cache and hasattr(opened.model.encoder, "step")

    def _ids(self, option: str, tokens: Sequence[str]) -> list[int]:
        ids = self.opened.vocabulary.ids
        for token in tokens:
            if token not in ids:
                raise ConfigError(f"{option}: {printable(token)!r} is no token of the vocabulary")
        return [ids[token] for token in tokens]

    def encode(self, lines: Sequence[Line], where: str) -> Ragged:
        """Return prompts as ids. Raises DataError for one without tokens, or too long a one."""
        prompts = self.opened.tokenizer.encode([line.text for line in lines])
        if self.special_tokens:
            prompts = join_pieces([self.opened.vocabulary.token_ids.cls, prompts])
        for row in np.flatnonzero(prompts.lengths == 0)[:1]:
            raise DataError(f"{where}:{lines[row].number}: no token in it; a prompt needs one")
        check_lengths(prompts, lines, self.opened.room(special_tokens=False), where)
        return prompts

    def iter_continuations(self, prompts: Ragged, numbers: np.ndarray) -> Iterator[Continuation]:
        """Yield `samples` continuations of each prompt, in order; like lengths grow together.

        numbers: (B,) int64, what the draws of a prompt depend on besides seed and sample.
        """
        samples = self.config.samples
        found: dict[int, Continuation] = {}
        order = np.argsort(np.repeat(prompts.lengths, samples), kind="stable")
        for start in range(0, len(order), PROMPTS_AT_ONCE):
            part = order[start : start + PROMPTS_AT_ONCE]
            rows = part // samples
            grown = self._grow(prompts.take(rows), self._draws(numbers[rows], part % samples))
            found.update(zip(part.tolist(), grown, strict=True))
        yield from (found[number] for number in range(len(order)))

    def _draws(self, numbers: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Return (B, new_tokens) float64 in [0, 1), for the numbers of prompts and samples."""
        return uniform(
            self.config.seed,
            name_counter("generate"),
            numbers[:, None],
            samples[:, None],
            np.arange(self.config.new_tokens)[None, :],
        )

    @torch.no_grad()
    def _grow(self, prompts: Ragged, draws: np.ndarray) -> list[Continuation]:
        """Return a continuation of each prompt.

        All texts stand at the same position, from the end of the shortest prompt on: those whose
        prompt is longer read on while the others already grow.
        """
        text = _Text(prompts, self.config.new_tokens, self.opened)
        uniform_draws = torch.from_numpy(draws).to(text.ids.device)
        cache, read = None, 0
        for position in range(int(prompts.lengths.min()), text.ids.shape[1]):
            if self.cached:
                hidden, cache = self.opened.model.step(text.ids[:, read:position], cache)
                read = position
            else:
                seen = text.ids[:, :position]
                batch = {"token_ids": seen, "segment_ids": torch.ones_like(seen)}
                hidden = self.opened.model.encode(batch)
            growing = text.growing(position)
            if growing.any():
                places = (position - text.starts).clamp(0, draws.shape[1] - 1)
                drawn = uniform_draws.gather(1, places[:, None])[:, 0]
                logits = self.target.output.logits(hidden[:, -1]).float()
                chosen = choose(logits, text.used, self.forbidden, drawn, self.config)
                text.append(position, chosen, growing, torch.isin(chosen, self.stop))
            if text.finished(position + 1):
                break
        return text.continuations()


class _Text:
    """Texts (B, T) that grow to the right. starts, ends: (B,) where the continuations lie."""

    def __init__(self, prompts: Ragged, new_tokens: int, opened: PretrainedModel):
        lengths, special = prompts.lengths, opened.vocabulary.token_ids
        room = opened.room(special_tokens=False)
        limit = int(lengths.max()) + new_tokens
        width = limit if room is None else min(limit, room)
        device = opened.device
        self.ids = torch.from_numpy(prompts.padded(width, special.pad)).to(device)
        self.starts = torch.from_numpy(lengths).to(device)
        self.ends = self.starts.clone()
        self.limits = self.starts + new_tokens
        self.stopped = torch.zeros(len(prompts), dtype=torch.bool, device=device)
        self.used = torch.zeros(len(prompts), special.vocab_size, dtype=torch.bool, device=device)
        rows = torch.from_numpy(np.repeat(np.arange(len(prompts)), lengths)).to(device)
        self.used[rows, torch.from_numpy(prompts.values.astype(np.int64)).to(device)] = True

    def growing(self, position: int) -> Tensor:
        """Return (B,) bool: which texts get a new token at this position."""
        return (self.starts <= position) & (position < self.limits) & ~self.stopped

    def finished(self, position: int) -> bool:
        """Return whether no text grows here or further on."""
        return not bool(((position < self.limits) & ~self.stopped).any())

    def append(self, position: int, chosen: Tensor, growing: Tensor, stops: Tensor) -> None:
        """Put the chosen tokens where texts grow; a stop token ends a text and is left out."""
        self.stopped |= growing & stops
        kept = growing & ~stops
        self.ids[kept, position] = chosen[kept]
        self.used[kept, chosen[kept]] = True
        self.ends += kept

    def continuations(self) -> list[Continuation]:
        """Return what was added to each prompt."""
        found = []
        for row in range(len(self.ids)):
            start, end = int(self.starts[row]), int(self.ends[row])
            reason = "stop" if self.stopped[row] else "positions"
            reason = "length" if end == int(self.limits[row]) else reason
            found.append(Continuation(self.ids[row, start:end].tolist(), reason))
        return found


@PROBES.register("generate")
class GenerateProbe(Probe):
    """Continue prompts with a language model.

    A row for each prompt and sample: line, sample, prompt, continuation, tokens (how many were
    added), end (stop, length, or positions where the model has no more). Every draw depends on the
    seed, the line number, the sample and the position alone, so that a continuation is the same
    whatever else is in the input. Needs the target lm.
    Source: the 2020 reference's generate. Differs: all lines are prompts; stop tokens; keys and
    values, or recurrent states, are kept; no activation on the scores.
    """

    reads = "prompts, one a line"
    needs = "lm"
    Config = GenerationConfig

    def __init__(self, config: GenerationConfig, request: Request):
        super().__init__(config, request)
        self.generator = Generator(request.open_model(), config)

    def run(self, output: Output) -> dict[str, Any]:
        """Write a row for each continuation; return the books."""
        books = {"lines": 0, "skipped": 0, "continuations": 0, "tokens": 0}
        output.write_rows(self._iter_rows(books))
        return books

    def _iter_rows(self, books: dict[str, int]) -> Iterator[dict[str, Any]]:
        opened = self.generator.opened
        tokens, tokenizer = opened.vocabulary.tokens, opened.metadata["tokenizer"]
        for window in self.request.iter_windows():
            lines = [line for line in window if line.text.strip()]
            books["lines"] += len(window)
            books["skipped"] += len(window) - len(lines)
            if not lines:
                continue
            prompts = self.generator.encode(lines, self.request.where)
            numbers = np.array([line.number for line in lines], np.int64)
            found = self.generator.iter_continuations(prompts, numbers)
            for line, sample in product(lines, range(1, self.config.samples + 1)):
                added = next(found)
                books["continuations"] += 1
                books["tokens"] += len(added.ids)
                yield {
                    "line": line.number,
                    "sample": sample,
                    "prompt": line.text,
                    "continuation": join_tokens([tokens[i] for i in added.ids], tokenizer),
                    "tokens": len(added.ids),
                    "end": added.end,
                }
