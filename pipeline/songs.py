"""The track list of the built-in library: invented artists in the four genres of the paper's Table 3.

In each genre two main artists have an album of three tracks, and two guests have a single. Nothing is shared between
artists, and the guests are the smallest artist groups, so that a validation split of 15% is exactly the guests.
"""

from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np

GENRES = ("electronic", "hip hop", "metal", "pop")
SUFFIXES = (".flac", ".mp3", ".ogg", ".m4a")

# Drawn from the seed is who gets which length, not the lengths, so that the guests' share of 17% holds for any seed.
_MAIN_DURATIONS = np.linspace(60.0, 90.0, 24)  # s
_GUEST_DURATIONS = np.linspace(45.2, 46.0, 8)  # s
_MONO = (12, 31)  # numbers of two tracks


@dataclass(frozen=True, kw_only=True)
class Song:
    """One track of the library: its tags, and the file that it is to be."""

    number: int  # in the library, from 1
    genre: str  # one of GENRES
    title: str
    artists: tuple[str, ...]
    album: str
    album_artist: str
    track: int  # on the album, from 1
    genres: tuple[str, ...]
    year: int
    duration: float  # s
    suffix: str  # one of SUFFIXES
    sample_rate: int  # Hz
    channels: int
    cover: bool

    @property
    def path(self) -> PurePosixPath:
        """Where it lies in the library: Artist/Album/NN Title.ext."""
        return PurePosixPath(self.album_artist, self.album, f"{self.track:02} {self.title}{self.suffix}")


@dataclass(frozen=True)
class _Release:
    """An album of three tracks or a single, and who else sings on its second track."""

    artist: str
    album: str
    year: int
    genres: tuple[str, ...]
    titles: tuple[str, ...]
    featured: str = ""


_RELEASES = {
    "electronic": (
        _Release("Kilowatt Garden", "Night Current (Deluxe Edition)", 2016, ("Electronic", "electro house"),
                 ("Afterhours on Mars", "Drop the Skyline", "Afterhours on Mars - Halogen Remix"), "Mira Volt"),
        _Release("Løvetann Sound System", "Ferry to Malmö", 2009, ("electronic", "deep house"),
                 ("Glasshouse", "Nordlys", "Slow Ferry (Remix)")),
        _Release("Hexa Parade", "Violet Grid", 2021, ("Electronic", "Dance", "EDM"), ("Violet Grid (Extended Remix)",)),
        _Release("Óscar Lumen", "Paralelo 40", 1998, ("trance", "Electronic"), ("Paralelo 40",)),
    ),
    "hip hop": (
        _Release("MC Kassette", "Hinterhof (Premium Edition)", 2012, ("german hip hop",),
                 ("Späti um vier", "Nr. 27", "Beton & Flieder"), "Lena Block"),
        _Release("Dusty Ledger", "Corner Store Sermons", 1994, ("Hip Hop", "boom bap"),
                 ("Ledger's Theme", "Two Dollar Chess", "Porch Light")),
        _Release("Abuelo Ritmo", "Barrio Azul", 2022, ("latin hip hop",), ("Dejando la Esquina",)),
        _Release("Ninth Stair", "Escape Stairs (Deluxe)", 2018, ("Alternative Hip Hop",), ("Oh My, Oh Well",)),
    ),
    "metal": (
        _Release("Ashen Oath", "Throne of Rust (Deluxe)", 2006, ("Death Metal",),
                 ("Throne of Rust", "The Pit Below", "Nine Iron Winters")),
        _Release("Blodmåne", "Fjellets Vrede", 1997, ("Metal", "black metal"),
                 ("Fjellets Vrede", "Ulvenes Natt", "Aske og Snø"), "Ragna Stormdatter"),
        _Release("Viper Cathedral", "To the Hilt", 1984, ("heavy metal",), ("Ride to the Hilt",)),
        _Release("Żelazny Świt", "Kuźnia", 2015, ("melodic metal",), ("Kuźnia",)),
    ),
    "pop": (
        _Release("Juniper Lane", "Paper Summers (Deluxe Edition)", 2014, ("Pop", "dance pop"),
                 ("Paper Summers", "Call It Sunday", "Paper Summers - Rooftop Remix"), "Theo Marigold"),
        _Release("Lucía Marén", "30 Noches de Verano", 2011, ("latin pop",),
                 ("Treinta Noches", "Corazón de Papel", "Señales")),
        _Release("The Velvet Postcards", "Greetings from the Pier", 1973, ("pop",), ("Dear Annabel",)),
        _Release("Wim & the Weekenders", "Umbrella Weather", 2023, ("indie", "Pop"), ("Umbrella Weather",)),
    ),
}  # fmt: skip


def songs(seed: int = 0) -> list[Song]:
    """The 32 songs of the library, by genre and artist; `seed` deals out their durations."""
    rng = np.random.default_rng(seed)
    main, guest = iter(rng.permutation(_MAIN_DURATIONS)), iter(rng.permutation(_GUEST_DURATIONS))
    listed: list[Song] = []
    for turn, genre in enumerate(GENRES):
        for release in _RELEASES[genre]:
            for track, title in enumerate(release.titles, 1):
                place = len(listed) % 8  # in its genre
                listed.append(
                    Song(
                        number=len(listed) + 1,
                        genre=genre,
                        title=title,
                        artists=(release.artist, release.featured)[: 2 if release.featured and track == 2 else 1],
                        album=release.album,
                        album_artist=release.artist,
                        track=track,
                        genres=release.genres,
                        year=release.year,
                        duration=round(float(next(main if len(release.titles) > 1 else guest)), 2),
                        # Each genre has each format twice and 44.1 kHz twice, on other places than the genre before.
                        suffix=SUFFIXES[(place + turn) % 4],
                        sample_rate=44_100 if place in (turn, (turn + 5) % 8) else 48_000,
                        channels=1 if len(listed) + 1 in _MONO else 2,
                        cover=(place + turn) % 3 == 0,
                    )
                )
    return listed
