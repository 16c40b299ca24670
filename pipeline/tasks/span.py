"""Machine reading: the answer to a question as a span of a passage, found in windows."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.errors import ConfigError
from pipeline.layers import Dropout, TargetOutput
from pipeline.registry import TASKS, ComponentConfig
from pipeline.tasks import Scores, Task, Tokenizer
from pipeline.text.answers import is_exact, overlap_f1
from pipeline.text.inputs import number_rows
from pipeline.text.passages import (
    UNIT,
    Question,
    TokenSpans,
    answer_tokens,
    iter_questions,
    token_spans,
    window_starts,
)
from pipeline.text.rows import Ragged, Rows
from pipeline.text.tables import Gold, RowLedger
from pipeline.text.tokenizers import SpaceTokenizer, WordTokenizer

EXCERPT = 30
HIDDEN = -1e4


class SpanPrediction(NamedTuple):
    """The answer found and its probability within its window. start: its first character."""

    text: str
    start: int
    probability: float


class SpanHead(nn.Module):
    """Dropout, linear, tanh, linear to a start and an end score for each position.

    Source: the 2020 reference's reader. Differs: only [CLS], which stands for "not in this
    window", and the window's tokens can be chosen, unless read_all.
    """

    def __init__(self, hidden_size: int, dropout: float, read_all: bool):
        super().__init__()
        self.read_all = read_all
        self.dropout = Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.output = nn.Linear(hidden_size, 2)

    def forward(
        self, hidden: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, TargetOutput | None]:
        """Return logits (B, T, 2), and the loss where `starts` is there.

        hidden: (B, T, D); batch: window_place, window_size (B,), starts, ends (B,) int64, both 0
        for an answer outside the window. The loss is the mean of both cross-entropies, summed.
        """
        logits = self.output(torch.tanh(self.dense(self.dropout(hidden)))).float()
        if not self.read_all:
            places = torch.arange(hidden.shape[1], device=hidden.device)[None, :]
            first = batch["window_place"][:, None]
            inside = (places >= first) & (places < first + batch["window_size"][:, None])
            hidden_places = ~(inside | (places == 0))
            logits = logits.masked_fill(hidden_places[:, :, None], HIDDEN)
        if "starts" not in batch:
            return logits, None
        gold = batch["starts"], batch["ends"]
        loss = sum(
            F.cross_entropy(logits[:, :, side], gold[side], reduction="sum") for side in (0, 1)
        )
        best = logits.argmax(1)
        correct = ((best[:, 0] == gold[0]) & (best[:, 1] == gold[1])).sum()
        assert isinstance(loss, Tensor)
        return logits, TargetOutput(loss / 2, {"accuracy": (correct, torch.tensor(len(best)))})


@TASKS.register("span")
class SpanTask(Task):
    """A span of the passage for each question. Metrics: F1, exact match, and their mean first.

    Source: the scorer of CMRC 2018 (Cui et al. 2019). Differs from the 2020 reference: windows
    without the answer stay, in training as "not here" and in scoring; the end is the last token;
    start and end are chosen together.
    """

    class Config(ComponentConfig):
        """Options of the task."""

        stride: Annotated[int, Field(ge=1)] | None = None
        """Tokens from one window's start to the next; absent: half a window."""
        max_question_tokens: Annotated[int, Field(ge=1)] = 64
        """Longer questions are cut on the right; never more than half of seq_length."""
        max_answer_tokens: Annotated[int, Field(ge=1)] = 64
        """Longest answer that is considered."""
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Share of the hidden states dropped before the head in training."""

    config: Config

    @classmethod
    def iter_examples(
        cls, source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool = False
    ) -> Iterator[Question]:
        """Yield the questions of a SQuAD-style file, or of a table without answers."""
        return iter_questions(source, ledger, gold, json_lines)

    def encode(self, examples: Sequence[Question], tokenizer: Tokenizer, ledger: RowLedger) -> Rows:
        """Return windows `[CLS] question [SEP] window [SEP]`, at least one for each question.

        Columns: first_length, window_place and window_size of its tokens, begins and ends of their
        characters, starts and ends_at (0: the answer is not in the window, -1: unknown), example.
        """
        pattern = self._unit(tokenizer)
        contexts = token_spans([example.context for example in examples], tokenizer, pattern)
        questions = tokenizer.encode([example.question for example in examples])
        limit = min(self.config.max_question_tokens, (self.settings.seq_length - 3) // 2)
        ledger.note("questions truncated", int((questions.lengths > limit).sum()))
        windows: list[_Window] = []
        for number, (example, spans) in enumerate(zip(examples, contexts, strict=True)):
            start, end = questions.offsets[number : number + 2]
            question = questions.values[start : min(end, start + limit)]
            windows += self._windows(number, example, question, spans, ledger)
        return _rows(windows)

    def _unit(self, tokenizer: Tokenizer) -> re.Pattern[str]:
        """Return what a passage is cut into before it is tokenized."""
        if isinstance(tokenizer, WordTokenizer):
            raise ConfigError("tokenizer: word does not tell characters; use bert, char or space")
        return re.compile("[^ ]+") if isinstance(tokenizer, SpaceTokenizer) else UNIT

    def _windows(
        self,
        number: int,
        example: Question,
        question: np.ndarray,
        spans: TokenSpans,
        ledger: RowLedger,
    ) -> list["_Window"]:
        ids = self.settings.token_ids
        room = self.settings.seq_length - len(question) - 3
        stride = min(self.config.stride or max(1, room // 2), room)
        located = example.located
        gold = answer_tokens(spans, located) if located else None
        found = []
        for first in window_starts(len(spans.ids), room, stride):
            part = slice(first, first + room)
            tokens = spans.ids[part]
            place = len(question) + 2
            inside = gold is not None and first <= gold[0] and gold[1] < first + len(tokens)
            answer = (-1, -1) if located is None else (0, 0)
            if inside and gold is not None:
                answer = (gold[0] - first + place, gold[1] - first + place)
            row = np.concatenate([[ids.cls], question, [ids.sep], tokens, [ids.sep]])
            found.append(_Window(number, row, place, spans.begins[part], spans.ends[part], *answer))
        if located is not None and all(window.start <= 0 for window in found):
            ledger.note("answers in no window")
        return found

    def training_rows(self, rows: Rows) -> Rows:
        """Return the windows of questions whose answer stands at its offset.

        uer-2020: those windows alone that hold the answer.
        """
        lowest = 1 if self.settings.reference == "uer-2020" else 0
        return rows.take(np.flatnonzero(rows.column("starts") >= lowest))

    def build_head(self, hidden_size: int) -> nn.Module:
        """Return the head."""
        read_all = self.settings.reference == "uer-2020"
        return SpanHead(hidden_size, self.config.dropout, read_all)

    def collate(self, rows: Rows, batch: dict[str, Tensor]) -> int:
        """Add window_place, window_size, and starts, ends where known, all (B,); units: rows."""
        for name in ("window_place", "window_size"):
            batch[name] = torch.from_numpy(rows.column(name))
        if (rows.column("starts") >= 0).all():
            batch["starts"] = torch.from_numpy(rows.column("starts"))
            batch["ends"] = torch.from_numpy(rows.column("ends_at"))
        return len(rows)

    def decode(
        self, head: nn.Module, logits: Tensor, batch: dict[str, Tensor]
    ) -> list[tuple[float, int, int]]:
        """Return (log-probability, first, last token) of the best span of each window.

        Tokens count from the window's first; the first is not behind the last, and spans are at
        most max_answer_tokens long.
        """
        scores = torch.log_softmax(logits, 1)
        width = max(1, int(batch["window_size"].max()))
        columns = torch.arange(width, device=logits.device)
        places = batch["window_place"][:, None] + columns
        inside = columns < batch["window_size"][:, None]
        places = places.clamp(max=logits.shape[1] - 1)[:, :, None].expand(-1, -1, 2)
        scores = scores.gather(1, places).masked_fill(~inside[:, :, None], -torch.inf)
        longest = min(self.config.max_answer_tokens, width)
        ends = F.pad(scores[:, :, 1], (0, longest - 1), value=-torch.inf).unfold(1, longest, 1)
        best, flat = (scores[:, :, :1] + ends).flatten(1).max(1)
        firsts, lengths = flat // longest, flat % longest
        return [
            (score, first, first + length)
            for score, first, length in zip(
                best.tolist(), firsts.tolist(), lengths.tolist(), strict=True
            )
        ]

    def predict(
        self,
        examples: Sequence[Question],
        rows: Rows,
        outcomes: Sequence[tuple[float, int, int]],
    ) -> list[SpanPrediction]:
        """Return the most probable span of each question over its windows."""
        found = [SpanPrediction("", 0, 0.0) for _ in examples]
        begins, ends = rows.ragged("begins"), rows.ragged("ends")
        numbers = rows.column("example").tolist()
        for row, (score, first, last) in enumerate(outcomes):
            number, probability = numbers[row], float(np.exp(score))
            offset, end = begins.offsets[row : row + 2].tolist()
            if end > offset and probability > found[number].probability:
                start = int(begins.values[offset + first])
                text = examples[number].context[start : int(ends.values[offset + last])]
                found[number] = SpanPrediction(text, start, probability)
        return found

    def score(self, examples: Sequence[Question], predictions: Sequence[SpanPrediction]) -> Scores:
        """Return the means over questions with answers of the best score over their answers."""
        pairs = [
            ([answer.text for answer in example.answers], prediction.text)
            for example, prediction in zip(examples, predictions, strict=True)
            if example.answers is not None
        ]
        count = max(1, len(pairs))
        f1 = sum(max(overlap_f1(gold, text) for gold in golds) for golds, text in pairs) / count
        exact = sum(any(is_exact(gold, text) for gold in golds) for golds, text in pairs) / count
        missing = len(examples) - len(pairs)
        return Scores(
            {"average": (f1 + exact) / 2, "f1": f1, "exact_match": exact},
            scored=len(pairs),
            unscored={"no answer": missing} if missing else {},
        )

    def describe(self, example: Question, prediction: SpanPrediction) -> dict[str, Any]:
        """Return question, gold and found answers, probability, and the passage around it."""
        start, end = prediction.start, prediction.start + len(prediction.text)
        golds = dict.fromkeys(answer.text for answer in example.answers or ())
        return {
            "id": example.id,
            "question": example.question,
            **({} if example.answers is None else {"gold": " | ".join(golds)}),
            "predicted": prediction.text,
            "probability": round(prediction.probability, 6),
            "start": start,
            "passage": example.context[max(0, start - EXCERPT) : end + EXCERPT],
        }


class _Window(NamedTuple):
    example: int
    token_ids: np.ndarray
    place: int
    begins: np.ndarray
    ends: np.ndarray
    start: int
    end: int


def _rows(windows: Sequence[_Window]) -> Rows:
    def column(values: list[int]) -> np.ndarray:
        return np.array(values, np.int64)

    return number_rows(
        {
            "token_ids": _ragged([window.token_ids for window in windows]),
            "first_length": column([window.place for window in windows]),
            "window_place": column([window.place for window in windows]),
            "window_size": column([len(window.begins) for window in windows]),
            "begins": _ragged([window.begins for window in windows]),
            "ends": _ragged([window.ends for window in windows]),
            "starts": column([window.start for window in windows]),
            "ends_at": column([window.end for window in windows]),
            "example": column([window.example for window in windows]),
        }
    )


def _ragged(lists: Sequence[np.ndarray]) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists])])
    return Ragged(np.concatenate([np.zeros(0, np.int64), *lists]), offsets.astype(np.int64))
