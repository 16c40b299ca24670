"""The digest that a page carries of itself, so that it can be verified alone."""

import re

from pipeline.artifacts import digest_bytes

# Stands where the digest goes, while that digest is taken.
NO_DIGEST = "0" * 32
# By which a page of ours is known even if its digest is damaged.
GENERATOR = '<meta name="generator" content="pretrain-zoo'
_PLACE = re.compile(r'<meta name="digest" content="([0-9a-f]{32})">')


def seal(page: str) -> str:
    """Return a page whose NO_DIGEST is replaced by the digest of the page as it was given."""
    return page.replace(NO_DIGEST, digest_bytes(page.encode()), 1)


def stated_digest(page: str) -> str | None:
    """Return the digest that a page states, None if it states none."""
    found = _PLACE.search(page)
    return found[1] if found else None


def page_digest(page: str) -> str:
    """Return the digest that a page should state."""
    found = _PLACE.search(page)
    assert found, "a page that states a digest"
    begin, end = found.span(1)
    return digest_bytes((page[:begin] + NO_DIGEST + page[end:]).encode())
