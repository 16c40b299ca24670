"""Misjudged rows for people."""

from pathlib import Path

from pipeline.report.mistakes import MAX_CHARACTERS, read_mistakes


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def test_the_most_confident_come_first_and_equals_in_file_order(tmp_path: Path) -> None:
    path = table(
        tmp_path / "p.tsv",
        "id\ttext_a\tgold\tpredicted\tprobability",
        "1\t对\t1\t1\t0.99",
        "2\t甲\t1\t0\t0.6",
        "3\t乙\t0\t1\t0.9",
        "4\t丙\t0\t1\t0.9",
    )
    assert [m.text for m in read_mistakes(path, 9)] == ["乙", "丙", "甲"]
    assert [m.text for m in read_mistakes(path, 1)] == ["乙"]
    assert read_mistakes(path, 0) == []


def test_texts_are_made_harmless_and_short(tmp_path: Path) -> None:
    path = table(
        tmp_path / "p.tsv",
        "text_a\ttext_b\tgold\tpredicted",
        f"\x1b[31m{'长' * 200}\t\u202eb\t\x07\t<b>",
    )
    (mistake,) = read_mistakes(path, 5)
    assert mistake.text.startswith("\\x1b[31m长") and len(mistake.text) == MAX_CHARACTERS
    assert (mistake.gold, mistake.predicted, mistake.confidence) == ("\\x07", "<b>", 0.0)


def test_quotes_are_quotes_and_pairs_are_joined(tmp_path: Path) -> None:
    path = table(
        tmp_path / "p.tsv", "text_a\ttext_b\tgold\tpredicted", '"甲\t乙\t1\t0', "丙\t丁\t1\t0"
    )
    assert [m.text for m in read_mistakes(path, 5)] == ['"甲 | 乙', "丙 | 丁"]


def test_other_tables_and_missing_files_have_none(tmp_path: Path) -> None:
    assert read_mistakes(tmp_path / "missing.tsv", 5) == []
    assert read_mistakes(table(tmp_path / "p.tsv", "tokens\ttags", "a\tO"), 5) == []
    assert read_mistakes(table(tmp_path / "empty.tsv"), 5) == []
