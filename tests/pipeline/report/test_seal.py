"""The digest that a page carries."""

from pipeline.report.seal import NO_DIGEST, page_digest, seal, stated_digest

PAGE = f'<meta name="digest" content="{NO_DIGEST}"><p>{NO_DIGEST}</p>'


def test_a_sealed_page_states_its_digest() -> None:
    sealed = seal(PAGE)
    assert stated_digest(sealed) == page_digest(sealed) != NO_DIGEST
    assert NO_DIGEST in sealed  # what stands elsewhere is content


def test_every_change_shows() -> None:
    sealed = seal(PAGE)
    changed = sealed.replace("<p>", "<p >")
    assert stated_digest(changed) == stated_digest(sealed)
    assert page_digest(changed) != stated_digest(changed)


def test_other_pages_state_none() -> None:
    assert stated_digest("<p>content</p>") is None
