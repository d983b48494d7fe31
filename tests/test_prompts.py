"""Prompts: section 5.1 to the letter, and Tables 2 and 3 of the paper."""

import dataclasses
import itertools
import math
from collections import Counter
from typing import Any

import pytest

from pipeline.prompts import draw_prompt, elements, plain_prompt, top_keywords, tracks_by_id
from pipeline.records import Track

DRAWS = 10_000


def make_track(**known: Any) -> Track:
    blank = {field.name: None for field in dataclasses.fields(Track)}
    return Track(**(blank | {"id": "a", "length": 1, "artists": [], "genres": []} | known))


FULL = make_track(title="Title", artists=["Artist"], album="Album", genres=["genre"], year=1999)
PLACE = "2 of 4"
FIVE_SIGMA = 5 * math.sqrt(DRAWS)  # times sqrt(p·(1 - p)): a fair draw leaves these bounds once in 1.7 million times


def draws(track: Track = FULL) -> list[str]:
    return [draw_prompt(track, 2, 4, seed=0, step=step) for step in range(DRAWS)]


def assert_rate(count: int, probability: float) -> None:
    assert abs(count - DRAWS * probability) < FIVE_SIGMA * math.sqrt(probability * (1 - probability))


def test_elements_come_in_the_papers_order():
    assert elements(FULL, 2, 4) == ["Title", "Artist", "Album", "genre", "1999", PLACE]
    assert plain_prompt(FULL, 2, 4) == "Title, Artist, Album, genre, 1999, 2 of 4"


def test_what_the_tags_lack_is_absent_and_nothing_is_invented():
    assert elements(make_track(path="/music/01 Song.mp3", title=""), 1, 1) == ["1 of 1"]


def test_fields_with_several_values_are_one_element():
    track = make_track(artists=["Kanine", "Darbuka"], genres=["Drums", "Rythm"])
    assert elements(track, 1, 2) == ["Kanine, Darbuka", "Drums, Rythm", "1 of 2"]


def test_each_element_is_dropped_with_probability_a_tenth():
    prompts = draws()
    for element in elements(FULL, 2, 4):
        assert_rate(sum(element not in prompt for prompt in prompts), 0.1)


def test_drops_are_independent():
    prompts = draws()
    for one, other in itertools.combinations(elements(FULL, 2, 4), 2):
        assert_rate(sum(one not in prompt and other not in prompt for prompt in prompts), 0.01)


def test_spaces_and_commas_are_equally_likely():
    commas = sum(", " in prompt for prompt in draws())
    fewer_than_two = 0.1**6 + 6 * 0.9 * 0.1**5  # elements kept: there is nothing to join
    assert_rate(commas, 0.5 * (1 - fewer_than_two))


def test_every_element_is_equally_likely_in_every_position():
    # Nothing dropped and commas: 0.9^6 / 2 of the draws.
    orders = [prompt.split(", ") for prompt in draws()]
    whole = [order for order in orders if len(order) == 6]
    for element, position in itertools.product(elements(FULL, 2, 4), range(6)):
        assert_rate(sum(order[position] == element for order in whole), 0.9**6 / 2 / 6)


def test_every_order_subset_and_separator_occurs_and_nothing_else():
    track = make_track(title="T", artists=["A"])
    possible = {
        separator.join(order)
        for size in range(4)
        for order in itertools.permutations(["T", "A", PLACE], size)
        for separator in (" ", ", ")
    }
    assert {draw_prompt(track, 2, 4, seed=1, step=step) for step in range(30_000)} == possible


def test_a_draw_depends_on_seed_step_track_and_chunk_alone():
    prompt = draw_prompt(FULL, 2, 4, seed=0, step=7)
    assert draw_prompt(dataclasses.replace(FULL, path="/elsewhere"), 2, 4, seed=0, step=7) == prompt
    others = {
        "seed": [draw_prompt(FULL, 2, 4, seed=seed, step=7) for seed in range(50)],
        "step": [draw_prompt(FULL, 2, 4, seed=0, step=step) for step in range(50)],
        "track": [draw_prompt(dataclasses.replace(FULL, id=str(i)), 2, 4, seed=0, step=7) for i in range(50)],
        "chunk": [draw_prompt(FULL, index, 50, seed=0, step=7).replace(str(index), "") for index in range(1, 51)],
    }
    for name, prompts in others.items():
        assert len(set(prompts)) > 40, name


def test_a_draw_is_the_same_on_every_machine_and_python():
    assert [draw_prompt(FULL, 2, 4, seed=0, step=step) for step in range(3)] == [
        "2 of 4, Artist, 1999, Title, Album, genre",
        "genre, 1999, Album, Artist",
        "genre, 2 of 4, Artist, Album, 1999, Title",
    ]


# Table 2: the tags that each prompt betrays. Elements that are not in it were dropped.
@pytest.mark.parametrize(
    ("prompt", "tags", "index", "count"),
    [
        (
            "Nr. 415 (Premium Edition), german hip hop, 2 of 7, 2012, XATAR, Konnekt",
            {"title": "Konnekt", "artists": ["XATAR"], "album": "Nr. 415 (Premium Edition)",
             "genres": ["german hip hop"], "year": 2012},
            2, 7,
        ),
        (
            "30 Años de Exitos, Mundanzas, 2 of 6, latin pop, Lupita D’Alessio, 2011",
            {"title": "Mundanzas", "artists": ["Lupita D’Alessio"], "album": "30 Años de Exitos",
             "genres": ["latin pop"], "year": 2011},
            2, 6,
        ),
        (
            "emo rap 2018 Runaway Lil Peep 4 of 5",
            {"title": "Runaway", "artists": ["Lil Peep"], "album": "Come Over When You're Sober, Pt. 2",
             "genres": ["emo rap"], "year": 2018},
            4, 5,
        ),
        (
            "Alone, Pt. II (Remixes) 2020 electro house Alone, Pt. II - Da Tweekaz Remix Alan Walker",
            {"title": "Alone, Pt. II - Da Tweekaz Remix", "artists": ["Alan Walker"],
             "album": "Alone, Pt. II (Remixes)", "genres": ["electro house"], "year": 2020},
            1, 4,
        ),
    ],
)  # fmt: skip
def test_the_prompts_of_table_2_can_be_drawn(prompt: str, tags: dict[str, Any], index: int, count: int):
    # Each is the join of a permutation of a subset of the elements, and all of these occur (see above).
    listed = elements(make_track(**tags), index, count)
    assert prompt in {
        separator.join(order)
        for size in range(len(listed) + 1)
        for order in itertools.permutations(listed, size)
        for separator in (" ", ", ")
    }


def test_keywords_are_counted_once_a_track_and_most_frequent_first():
    tracks = [
        make_track(title="Drop (Remix)", artists=["Kanine"], genres=["Bass House"], year=2018),
        make_track(title="Remix, remix and REMIX", artists=["Darzky"], genres=["bass house"], year=2018),
        make_track(title="Remix", genres=["bass house"], album="Drops (Deluxe Edition)", year=2012),
    ]
    keywords = dict(top_keywords(tracks, 100))
    assert list(keywords)[:2] == ["bass house", "Remix"]  # equally frequent: by name; in their commonest spelling
    assert {"bass house": 3, "Remix": 3, "2018": 2, "(Remix)": 1, "(Deluxe Edition)": 1, "Kanine": 1}.items() <= (
        keywords.items()
    )
    assert "and" not in keywords
    assert top_keywords(tracks, 1) == [("bass house", 3)]


def test_keywords_of_table_3_are_found_in_titles_and_albums():
    tracks = [make_track(title="Venom (Remix)", album="Stones (Deluxe) [High Quality]")]
    assert Counter(dict(top_keywords(tracks, 100))) == Counter(
        ["Venom", "Remix", "(Remix)", "(Deluxe)", "[High Quality]"]
    )


def test_one_recording_under_two_paths_is_one_track():
    first, second = make_track(path="/a", length=5), make_track(path="/b", length=5)
    undecoded = make_track(path="/c", id=None, length=None)
    assert tracks_by_id([first, second, undecoded]) == {"a": first}
