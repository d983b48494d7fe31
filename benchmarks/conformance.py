"""How many of the values that the tests of mutagen, mediafile, pytaglib and TagLib state for their files we read.

    sh benchmarks/fixtures.sh DIR && python benchmarks/conformance.py DIR

A duration counts where the header's or the decoded one is right: both are columns, and what the tests state for cut
files is the header's. `stated_tags.csv` holds the values, with the test that states each. Its column `policy` names the
values that are a matter of taste or of no use here, with our reason; they are listed and not counted.
"""

import csv
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from pipeline.decode import Unusable, probe
from pipeline.tags import read_tags

STATED = Path(__file__).with_name("stated_tags.csv")
_TOLERANCE = 0.15  # s


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A stated value and what we read."""

    file: str
    field: str
    stated: str
    stated_by: str
    policy: str
    read: str

    @property
    def right(self) -> bool:
        if self.field != "duration":
            return self.read == self.stated
        return any(abs(float(each) - float(self.stated)) <= _TOLERANCE for each in self.read.split())


def readings(folder: Path) -> list[Reading]:
    """All stated values with ours, for the fixtures in `folder`; "" is no value, lists are joined by "; "."""
    with STATED.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        Reading(
            file=row["file"], field=row["field"], stated=row["value"], stated_by=row["stated_by"],
            policy=row["policy"], read=_read(folder / row["file"], row["field"]),
        )
        for row in rows
    ]  # fmt: skip


def _read(path: Path, field: str) -> str:
    with path.open("rb") as file:
        if field == "duration":
            try:
                found = probe(file)
            except Unusable:
                return ""
            return f"{found.header_duration or 0:.3f} {found.decoded_length / found.sample_rate:.3f}"
        value = getattr(read_tags(file), {"artist": "artists", "genre": "genres"}.get(field, field))
    return "; ".join(value) if isinstance(value, list) else str("" if value is None else value)


def main() -> None:
    found = readings(Path(sys.argv[1]))
    counted = [reading for reading in found if not reading.policy]
    for reading in found:
        if not reading.right:
            why = reading.policy or "WRONG"
            print(f"{reading.file} {reading.field}: stated {reading.stated!r}, read {reading.read!r} ({why})")
    right, total = Counter(each.field for each in counted if each.right), Counter(each.field for each in counted)
    for field, count in sorted(total.items()):
        print(f"{field:13} {right[field]:4} of {count:4}")
    print(f"{'all':13} {right.total():4} of {total.total():4} = {right.total() / total.total():.2%}")
    print(f"{len(found) - len(counted)} values are policy")


if __name__ == "__main__":
    main()
