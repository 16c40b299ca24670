"""Sequence labelling: one tag for each token of a sentence, scored by whole entities."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from pipeline.crf import Crf
from pipeline.errors import ConfigError, DataError, printable
from pipeline.layers import Dropout, TargetOutput
from pipeline.registry import TASKS, ComponentConfig
from pipeline.tasks import Scores, Task, Tokenizer
from pipeline.text.inputs import join_pieces, number_rows
from pipeline.text.rows import Ragged, Rows
from pipeline.text.tables import Gold, RowLedger
from pipeline.text.tagged import (
    OUTSIDE,
    TaggedSentence,
    cut_tokens,
    iter_tagged_sentences,
    loose_insides,
    slices,
    token_windows,
)

MAX_TAGS = 1000
UNSCORED = -100
PREFIXED = re.compile(r"([BIESM])-(.+)", re.DOTALL)


class TagPrediction(NamedTuple):
    """A tag and its probability for each token; O and 0 where the sentence was truncated."""

    tags: list[str]
    probabilities: list[float]


class TagHead(nn.Module):
    """Dropout and a linear map of the hidden state at each token; on request a chain above it."""

    def __init__(self, hidden_size: int, num_tags: int, dropout: float, crf: bool):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, num_tags)
        self.crf = Crf(num_tags) if crf else None

    def forward(
        self, hidden: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, TargetOutput | None]:
        """Return logits (B, W, L) at the tokens, and the loss where `labels` is there.

        hidden: (B, T, D); batch: places (B, W) int64, the position of each token's first piece;
        counts (B,); labels (B, W), UNSCORED beyond a row's tokens. The loss is the summed
        cross-entropy of the tokens, or with a chain the negative log-likelihood of the rows.
        """
        places = batch["places"][:, :, None].expand(-1, -1, hidden.shape[2])
        logits = self.output(self.dropout(hidden.gather(1, places))).float()
        if "labels" not in batch:
            return logits, None
        labels = batch["labels"]
        if self.crf is None:
            loss = F.cross_entropy(
                logits.flatten(0, 1), labels.flatten(), ignore_index=UNSCORED, reduction="sum"
            )
        else:
            loss = self.crf(logits, labels.clamp(min=0), batch["counts"]).sum()
        correct = (logits.argmax(2) == labels).sum()
        return logits, TargetOutput(loss, {"token_accuracy": (correct, batch["counts"].sum())})


@TASKS.register("tag")
class TagTask(Task):
    """A tag for each token. Metrics: strict entity F1, precision and recall by seqeval."""

    class Config(ComponentConfig):
        """Options of the task."""

        crf: bool = False
        """Score neighbouring tags together (conditional random field) and decode by Viterbi."""
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
        """Share of the hidden states dropped before the head in training."""
        scheme: Literal["auto", "bio", "bioes"] = "auto"
        """How tags mark entities; auto: bioes if a tag begins with E-, S- or M-, else bio."""
        long_sentences: Literal["split", "truncate"] = "split"
        """Over seq_length: several rows, or cut; gold that is cut off counts as missed."""

    config: Config

    @classmethod
    def iter_examples(
        cls, source: Path | BinaryIO, ledger: RowLedger, gold: Gold, json_lines: bool = False
    ) -> Iterator[TaggedSentence]:
        """Yield a sentence for each row: columns text_a and label, lists separated by spaces."""
        return iter_tagged_sentences(source, ledger, gold, json_lines)

    @classmethod
    def count_labels(cls, examples: Sequence[TaggedSentence], where: str) -> dict[str, int]:
        """Return tag -> count, O first, then by code point.

        Raises DataError for one tag only, or for too many.
        """
        counts = Counter(tag for example in examples for tag in example.tags or ())
        if len(counts) < 2:
            only = ", ".join(printable(name) for name in counts)
            raise DataError(f"{where}: only one class in training, {only!r}; expected two or more")
        if len(counts) > MAX_TAGS:
            raise DataError(
                f"{where}: {len(counts)} distinct tags; at most {MAX_TAGS}. Is a text taken for "
                "the column `label`?"
            )
        return {name: counts[name] for name in sorted(counts, key=lambda n: (n != OUTSIDE, n))}

    def accept(self, examples: Sequence[TaggedSentence], ledger: RowLedger) -> list[TaggedSentence]:
        """Return the sentences without tags or with the model's alone.

        Raises ConfigError (78) if no tag at all but O is the model's; a single foreign tag follows
        the ledger's policy (65).
        """
        known = set(self.settings.labels)
        found = {tag for example in examples for tag in example.tags or ()} - {OUTSIDE}
        if found and not found & known:
            theirs, ours = (", ".join(sorted(names - {OUTSIDE})[:5]) for names in (found, known))
            raise ConfigError(
                f"{ledger.where}: its tags are not the model's label map; found "
                f"{printable(theirs)}, the model has {printable(ours)}"
            )
        kept = []
        for example in examples:
            strange = [tag for tag in example.tags or () if tag not in known]
            if strange:
                ledger.refuse(
                    example.line,
                    "label unseen in training",
                    f"tag {printable(strange[0])!r} does not appear in training; the label map "
                    f"has {printable(', '.join(self.settings.labels))}",
                )
            else:
                kept.append(example)
        ledger.note("tags outside the scheme", self._count(kept, self._is_strange))
        ledger.note("inside tags without a begin", sum(map(loose_insides, kept)))
        return kept

    def _count(self, examples: Sequence[TaggedSentence], test: Any) -> int:
        return sum(test(tag) for example in examples for tag in example.tags or ())

    def _is_strange(self, tag: str) -> bool:
        return tag != OUTSIDE and not PREFIXED.fullmatch(tag)

    def encode(
        self, examples: Sequence[TaggedSentence], tokenizer: Tokenizer, ledger: RowLedger
    ) -> Rows:
        """Return rows `[CLS] pieces [SEP]`; a long sentence is several rows, or is truncated.

        Columns: places, of each token's first piece; tags (-1: unknown); example. uer-2020: no
        [CLS] and [SEP], and long sentences are truncated.
        """
        plain = self.settings.reference == "uer-2020"
        room = self.settings.seq_length - (0 if plain else 2)
        pieces = cut_tokens(examples, tokenizer, self.settings.token_ids.unk, room)
        keep_rest = self.config.long_sentences == "split" and not plain
        spans: list[tuple[int, int, int]] = []
        start = cut = 0
        for number, example in enumerate(examples):
            end = start + len(example.tokens)
            windows = token_windows(pieces.lengths[start:end], room)
            cut += len(windows) > 1 or windows[-1][1] < end - start
            kept = windows if keep_rest else windows[:1]
            spans += [(number, start + first, start + last) for first, last in kept]
            start = end
        ledger.note("split" if keep_rest else "truncated", cut)
        return self._rows(examples, np.array(spans, np.int64).reshape(-1, 3), pieces)

    def _rows(self, examples: Sequence[TaggedSentence], spans: np.ndarray, pieces: Ragged) -> Rows:
        """Return the rows of spans (R, 3): example, first and last token of all tokens together."""
        ids = self.settings.token_ids
        plain = self.settings.reference == "uer-2020"
        offsets = pieces.offsets
        texts = slices(pieces.values, offsets[spans[:, 1]], offsets[spans[:, 2]])
        firsts = slices(offsets[:-1], spans[:, 1], spans[:, 2])
        shift = np.repeat(offsets[spans[:, 1]] - (0 if plain else 1), firsts.lengths)
        known = {tag: place for place, tag in enumerate(self.settings.labels)}
        tags = [
            -1 if example.tags is None else known[example.tags[place]]
            for example in examples
            for place in range(len(example.tokens))
        ]
        return number_rows(
            {
                "token_ids": texts if plain else join_pieces([ids.cls, texts, ids.sep]),
                "places": Ragged(firsts.values - shift, firsts.offsets),
                "tags": slices(np.array(tags, np.int64), spans[:, 1], spans[:, 2]),
                "example": spans[:, 0],
            }
        )

    def build_head(self, hidden_size: int) -> nn.Module:
        """Return the head."""
        config = self.config
        return TagHead(hidden_size, len(self.settings.labels), config.dropout, config.crf)

    def collate(self, rows: Rows, batch: dict[str, Tensor]) -> int:
        """Add places (B, W), counts (B,), and labels (B, W) where all are known; units: tokens."""
        places, tags = rows.ragged("places"), rows.ragged("tags")
        width = int(places.lengths.max(initial=1))
        batch["places"] = torch.from_numpy(places.padded(width))
        batch["counts"] = torch.from_numpy(places.lengths)
        if (tags.values >= 0).all():
            batch["labels"] = torch.from_numpy(tags.padded(width, UNSCORED))
        return int(places.lengths.sum())

    def decode(
        self, head: nn.Module, logits: Tensor, batch: dict[str, Tensor]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return (label numbers, their probabilities) of the tokens of each row."""
        assert isinstance(head, TagHead)
        counts = batch["counts"]
        if head.crf is None:
            probabilities, best = torch.softmax(logits, 2).max(2)
        else:
            best = head.crf.decode(logits, counts)
            shares = head.crf.marginals(logits, counts)
            probabilities = shares.gather(2, best[:, :, None])[:, :, 0]
        tables = best.cpu().numpy(), probabilities.cpu().numpy()
        return [
            (numbers[:count], shares[:count])
            for numbers, shares, count in zip(*tables, counts.tolist(), strict=True)
        ]

    def predict(
        self,
        examples: Sequence[TaggedSentence],
        rows: Rows,
        outcomes: Sequence[tuple[np.ndarray, np.ndarray]],
    ) -> list[TagPrediction]:
        """Return the tags of each sentence, its rows put together again."""
        found: list[TagPrediction] = [TagPrediction([], []) for _ in examples]
        for number, (tags, shares) in zip(rows.column("example").tolist(), outcomes, strict=True):
            found[number].tags.extend(self.settings.labels[tag] for tag in tags.tolist())
            found[number].probabilities.extend(shares.tolist())
        for example, prediction in zip(examples, found, strict=True):
            missing = len(example.tokens) - len(prediction.tags)
            prediction.tags.extend([OUTSIDE] * missing)
            prediction.probabilities.extend([0.0] * missing)
        return found

    def score(
        self, examples: Sequence[TaggedSentence], predictions: Sequence[TagPrediction]
    ) -> Scores:
        """Return strict entity scores, micro and by type; tags outside the scheme are no entity."""
        pairs = [
            (example.tags, prediction.tags)
            for example, prediction in zip(examples, predictions, strict=True)
            if example.tags is not None
        ]
        gold = [self._scored(tags) for tags, _ in pairs]
        found = [self._scored(tags) for _, tags in pairs]
        report = entity_report(gold, found, self._scheme())
        tokens = sum(len(tags) for tags in gold)
        hits = sum(a == b for tags, theirs in pairs for a, b in zip(tags, theirs, strict=True))
        micro = report.pop("micro avg")
        missing = len(examples) - len(pairs)
        return Scores(
            {
                "f1": micro["f1"],
                "precision": micro["precision"],
                "recall": micro["recall"],
                "token_accuracy": hits / tokens if tokens else 0.0,
            },
            scored=len(pairs),
            unscored={"no label": missing} if missing else {},
            details={"scheme": self._scheme(), "entities": micro["support"], "per_label": report},
        )

    def _scheme(self) -> str:
        if self.config.scheme != "auto":
            return self.config.scheme
        return "bioes" if any(t[:2] in {"E-", "S-", "M-"} for t in self.settings.labels) else "bio"

    def _scored(self, tags: Sequence[str]) -> list[str]:
        """Return tags as seqeval knows them: M is another name of I, strange ones are outside."""
        allowed = "BI" if self._scheme() == "bio" else "BIES"
        scored = []
        for tag in tags:
            tag = "I" + tag[1:] if tag.startswith("M-") else tag
            known = PREFIXED.fullmatch(tag) and tag[0] in allowed
            scored.append(tag if known else OUTSIDE)
        return scored

    def describe(self, example: TaggedSentence, prediction: TagPrediction) -> dict[str, Any]:
        """Return tokens, gold and predicted tags, and the entities found with their text."""
        return {
            "id": example.id,
            "text_a": " ".join(example.tokens),
            **({} if example.tags is None else {"gold": " ".join(example.tags)}),
            "predicted": " ".join(prediction.tags),
            "entities": " ".join(self._entities(example, prediction)),
            "probability": round(min(prediction.probabilities), 6),
        }

    def _entities(self, example: TaggedSentence, prediction: TagPrediction) -> list[str]:
        from seqeval.scheme import IOB2, IOBES, Entities

        scheme = IOB2 if self._scheme() == "bio" else IOBES
        (entities,) = Entities([self._scored(prediction.tags)], scheme).entities
        return [f"{''.join(example.tokens[e.start : e.end])}/{e.tag}" for e in entities]


def entity_report(
    gold: list[list[str]], found: list[list[str]], scheme: str
) -> dict[str, dict[str, float]]:
    """Return type -> precision, recall, f1, support, and their micro average; 0/0 counts as 0.

    Source: seqeval, strict mode: an entity counts if both ends and the type are right, and an
    inside tag without a begin is none.
    """
    # Imported here: scikit-learn behind it takes two seconds, and every stage imports every task.
    from seqeval.metrics.v1 import classification_report
    from seqeval.scheme import IOB2, IOBES, Entities

    nothing = {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    kind = IOB2 if scheme == "bio" else IOBES
    if not (Entities(gold, kind).unique_tags or Entities(found, kind).unique_tags):
        return {"micro avg": nothing}
    report = classification_report(gold, found, scheme=kind, output_dict=True, zero_division=0)
    names = {"f1-score": "f1"}
    return {
        tag: {names.get(k, k): int(v) if k == "support" else float(v) for k, v in values.items()}
        for tag, values in report.items()
        if tag not in {"macro avg", "weighted avg"}
    }
