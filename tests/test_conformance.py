"""What the tests of mutagen, mediafile, pytaglib and TagLib state about their files, against what we read of them."""

import os
from pathlib import Path

import pytest

from benchmarks.conformance import readings

FIXTURES = os.environ.get("MOUSAI_FIXTURES")


@pytest.mark.skipif(
    not FIXTURES, reason="get them with: sh benchmarks/fixtures.sh DIR; then set MOUSAI_FIXTURES=DIR (conformance)"
)
def test_stated_values_are_read():
    counted = [reading for reading in readings(Path(FIXTURES or "")) if not reading.policy]
    wrong = [f"{each.file} {each.field}: {each.stated!r}, read {each.read!r}" for each in counted if not each.right]
    assert len(counted) > 250
    assert len(wrong) <= 0.01 * len(counted), wrong
