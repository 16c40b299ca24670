"""Scores of free-text answers as the evaluation of CMRC 2018 counts them.

Source: Cui et al. 2019, "A Span-Extraction Dataset for Chinese Machine Reading Comprehension".
"""

import re
from collections.abc import Sequence

# The scorer of CMRC 2018 leaves these out of both answers. Its two-character "……" never matches a
# single character, so the ellipsis counts, as it does there.
CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
# One ideograph, a word with inner points (3.5, o'clock), or a mark.
UNIT = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+(?:[.,'][^\W\u4e00-\u9fa5]+)*|[^\w\s]")


def is_exact(gold: str, found: str) -> bool:
    """Return whether two answers are equal without case, outer blanks and punctuation."""
    return _plain(gold) == _plain(found)


def _plain(text: str) -> str:
    return "".join(c for c in text.lower().strip() if c not in CMRC_PUNCTUATION)


def overlap_f1(gold: str, found: str) -> float:
    """Return the F1 of the longest common run of units of two answers.

    Units: ideographs U+4E00 to U+9FA5 one by one; of other characters the words between blanks,
    marks apart. Source: the scorer of CMRC 2018. Differs: marks and words are cut by a plain rule
    instead of NLTK's tokenizer.
    """
    ours, theirs = answer_units(gold), answer_units(found)
    common = longest_common_run(ours, theirs)
    if not common:
        return 0.0
    return 2 * common / (len(ours) + len(theirs))


def answer_units(text: str) -> list[str]:
    """Return the units of an answer that `overlap_f1` compares, punctuation left out."""
    return UNIT.findall(_plain(text))


def longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    """Return the length of the longest run of units that stands in both."""
    best = 0
    before = [0] * (len(second) + 1)
    for unit in first:
        row = [0] * (len(second) + 1)
        for place, other in enumerate(second, 1):
            if unit == other:
                row[place] = before[place - 1] + 1
                best = max(best, row[place])
        before = row
    return best
