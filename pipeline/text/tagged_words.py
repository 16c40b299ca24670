"""Lines of words with part-of-speech tags, `word/tag word/tag`, as plain text or as entities."""

from collections.abc import Callable, Iterator

# Tags of the People's Daily corpus that name entities.
ENTITIES = {"nr": "PER", "ns": "LOC", "nt": "ORG"}
_SURNAME_AND_GIVEN_NAME = 2


def split_tags(line: str) -> list[tuple[str, str]]:
    """Return (word, tag) for each word of a line; the last slash of a word begins its tag."""
    pairs = (item.rpartition("/") for item in line.split())
    return [(word or tag, tag if word else "") for word, _, tag in pairs]


def spaced(line: str) -> str:
    """Return the words of a line with single spaces between them."""
    return " ".join(word for word, _ in split_tags(line))


def joined(line: str) -> str:
    """Return the words of a line without spaces."""
    return "".join(word for word, _ in split_tags(line))


PLAIN: dict[str, Callable[[str], str]] = {"spaced": spaced, "joined": joined}


def entities(line: str) -> tuple[str, str]:
    """Return the characters of a line and their BIO tags, two lists separated by spaces.

    Persons (nr), places (ns) and organisations (nt) are entities. A surname and the given name
    behind it, two words in the corpus, are one person.
    """
    characters: list[str] = []
    tags: list[str] = []
    for text, kind in _chunks(split_tags(line)):
        characters += text
        tags += ["O"] * len(text) if not kind else [f"B-{kind}", *[f"I-{kind}"] * (len(text) - 1)]
    return " ".join(characters), " ".join(tags)


def _chunks(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (text, kind of entity or nothing); names of two words are joined."""
    place = 0
    while place < len(pairs):
        word, tag = pairs[place]
        following = pairs[place + 1 : place + _SURNAME_AND_GIVEN_NAME]
        if tag == "nr" and len(word) <= 2 and [tag for _, tag in following] == ["nr"]:
            word += following[0][0]
            place += 1
        yield word, ENTITIES.get(tag, "")
        place += 1
