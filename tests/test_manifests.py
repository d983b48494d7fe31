"""The contracts as people read them are those that the code has."""

from pathlib import Path

from pipeline.records import describe

README = Path(__file__).parents[1] / "manifests" / "README.md"


def test_the_page_of_the_tables_is_what_the_records_say():
    assert README.read_text(encoding="utf-8") == describe(), "run: make manifests"
