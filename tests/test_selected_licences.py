"""Training on what its licence or consent allows: any spelling counts, and the setting is remembered."""

import pytest
from cli_runs import mousai, write_library, write_workspace
from test_chunks import make_track

from mousai.errors import UserError
from mousai.settings import SelectSettings
from mousai.workspace import FILE, make_workspace, open_workspace, set_only_licences
from pipeline.licences import is_among
from pipeline.selection import exclusions


@pytest.mark.parametrize(
    ("licence", "wanted", "among"),
    [
        ("CC0-1.0", ["CC0"], True),
        ("https://creativecommons.org/publicdomain/zero/1.0/", ["cc0"], True),
        ("CC-BY-4.0", ["CC-BY"], True),
        ("CC-BY-4.0", ["CC BY 4.0"], True),
        ("CC-BY-4.0", ["http://creativecommons.org/licenses/by/3.0/"], False),
        ("CC-BY-SA-3.0", ["CC-BY"], False),
        ("CC-BY-SA-3.0", ["CC0", "CC-BY*"], True),
        ("All rights reserved", ["CC*"], False),
        (None, ["*"], False),
    ],
)
def test_a_licence_is_the_same_in_any_spelling(licence: str | None, wanted: list[str], among: bool):
    assert is_among(licence, wanted) is among


def test_tracks_of_other_licences_or_none_are_left_out():
    free, other, none = (make_track(name, licence=text) for name, text in {"a": "CC0-1.0", "b": "X", "c": None}.items())
    assert exclusions([free, other, none], SelectSettings()) == {}
    only = SelectSettings(only_licences=("CC0",))
    assert exclusions([free, other, none], only) == {other.path: ["licence"], none.path: ["licence"]}


@pytest.mark.parametrize(("consent", "trained_on"), [("Yes", True), ("signed", True), ("no", False), (None, False)])
def test_only_a_consent_that_says_yes_counts(consent: str | None, trained_on: bool):
    track = make_track("a", consent=consent)
    assert exclusions([track], SelectSettings(require_consent=True)) == (
        {} if trained_on else {track.path: ["consent"]}
    )
    assert exclusions([track], SelectSettings()) == {}


@pytest.mark.parametrize("text", ['preset = "tiny"\n', None, 'preset = "tiny"\n[select]  # x\nmax_dc = 1.0\n'])
def test_licences_are_written_into_the_settings_and_nothing_else_is_changed(tmp_path, text: str | None):
    before = make_workspace(tmp_path, "tiny")
    if text is not None:
        (tmp_path / FILE).write_text(text)
        before = open_workspace(tmp_path)
    for licences in (["CC0", "CC-BY*"], ["CC0"]):
        assert set_only_licences(tmp_path, licences).select.only_licences == tuple(licences)
    assert open_workspace(tmp_path).preset == before.preset
    assert (tmp_path / FILE).read_text().count("only_licences") == 1


def test_settings_of_a_layout_of_their_own_are_left_alone(tmp_path):
    make_workspace(tmp_path, "tiny")
    (tmp_path / FILE).write_text(text := 'preset = "tiny"\nselect = { only_licences = ["X"] }\n')
    with pytest.raises(UserError, match="laid out in a way of its own"):
        set_only_licences(tmp_path, ["CC0"])
    assert (tmp_path / FILE).read_text() == text


def test_ingest_tells_what_a_licence_would_leave_and_remembers_it(tmp_path):
    space, library = write_workspace(tmp_path / "space"), write_library(tmp_path / "library")
    assert mousai("ingest", library, "-w", space, "-j", "1").code == 0
    before = (space / FILE).read_text()
    dry = mousai("ingest", "--only-licence", "CC0", "--dry-run", "-w", space)
    assert "3 licence" in dry.out and (space / FILE).read_text() == before
    assert "3 licence" in mousai("ingest", "--only-licence", "CC0", "-w", space, "-j", "1").out
    assert open_workspace(space).select.only_licences == ("CC0",)
