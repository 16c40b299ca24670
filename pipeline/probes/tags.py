"""Tags: whether the nearest neighbours of a word are words of its kind.

Composed with neighbours.py.
"""

from collections import Counter
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from pipeline.errors import DataError, printable
from pipeline.probes import Output, Probe, Request
from pipeline.probes.neighbours import nearest_tokens
from pipeline.registry import PROBES, ComponentConfig

# A word is of a kind if this share of its occurrences has the tag.
CLEAR_SHARE = 0.9


class TaggedToken(NamedTuple):
    """A token of the vocabulary that a tagged corpus knows."""

    id: int
    tag: str
    occurrences: int


@PROBES.register("tags")
class TagsProbe(Probe):
    """How often a word's nearest neighbours have the word's own tag, beside chance.

    Candidates are all tokens that the corpus clearly gives one of the `tags`; asked are the
    commonest of each tag, equally many. A row for each: word, tag, share (of its neighbours with
    that tag), neighbours. The books hold the mean share and what random neighbours would give.
    """

    reads = "a tagged corpus: word/tag between blanks, as in People's Daily 1998"

    class Config(ComponentConfig):
        """Options of the measurement."""

        tags: list[str] = Field(["nr", "ns", "nt", "n"], min_length=2)
        """Tags that take part: persons, places, organisations, other nouns."""
        words: int = Field(200, ge=1)
        """Words to ask, over all tags."""
        top: int = Field(10, ge=1)
        """Neighbours of each word."""
        min_count: int = Field(5, ge=1)
        """Tokens that the corpus holds less often are left out."""

    config: Config

    def __init__(self, config: Config, request: Request):
        super().__init__(config, request)
        self.opened = request.open_model()

    def run(self, output: Output) -> dict[str, Any]:
        """Write a row for each word; return the mean share and chance."""
        known = self._tagged_tokens()
        asked = self._asked(known)
        rows = self._compare(asked, known)
        output.write_rows(rows)
        sizes = Counter(token.tag for token in known)
        chances = [(sizes[token.tag] - 1) / (len(known) - 1) for token in asked]
        return {
            "words": len(asked),
            "candidates": len(known),
            "top": self.config.top,
            "share": fmean(row["share"] for row in rows),
            "chance": fmean(chances),
        }

    def _tagged_tokens(self) -> list[TaggedToken]:
        """Return the candidates, the commonest first. Raises DataError if two tags lack any."""
        where, tags = self.request.where, self.config.tags
        counts: dict[str, Counter[str]] = {}
        for line in self.request.iter_lines():
            for item in line.text.split():
                word, _, tag = item.rpartition("/")
                if not word:
                    shown = printable(item, 30)
                    raise DataError(f"{where}:{line.number}: '{shown}' is not word/tag")
                counts.setdefault(word, Counter())[tag] += 1
        found = []
        for word, tagged in counts.items():
            tag, count = tagged.most_common(1)[0]
            clear = count >= CLEAR_SHARE * tagged.total() and count >= self.config.min_count
            token = self.opened.vocabulary.ids.get(word)
            if tag in tags and clear and token is not None:
                found.append(TaggedToken(token, tag, count))
        if len({token.tag for token in found}) < 2:
            raise DataError(
                f"{where}: the vocabulary shares {len(found)} clearly tagged words with it; "
                f"words of two tags of {', '.join(tags)} are needed"
            )
        return sorted(found, key=lambda token: (-token.occurrences, token.id))

    def _asked(self, known: list[TaggedToken]) -> list[TaggedToken]:
        """Return the commonest words of each tag, equally many where there are enough."""
        each = -(-self.config.words // len(self.config.tags))
        by_tag = [[t for t in known if t.tag == tag][:each] for tag in self.config.tags]
        return [token for tokens in by_tag for token in tokens]

    def _compare(self, asked: list[TaggedToken], known: list[TaggedToken]) -> list[dict[str, Any]]:
        table, tokens = self.opened.word_embedding, self.opened.vocabulary.tokens
        ids = np.array([token.id for token in known])
        own = np.array([token.id for token in asked])
        found = nearest_tokens(table[own], own, table[ids], ids, self.config.top)
        tags = {token.id: token.tag for token in known}
        return [
            {
                "word": tokens[token.id],
                "tag": token.tag,
                "share": fmean(tags[i] == token.tag for i in nearest),
                "neighbours": {f"{tokens[i]}/{tags[i]}": round(c, 4) for i, c in nearest.items()},
            }
            for token, nearest in zip(asked, found, strict=True)
        ]
