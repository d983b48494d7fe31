"""Texts out of tags made fit to be read: wrong encodings undone where that is certain, one visible line each."""

import re
import unicodedata

_ROUNDS = 3  # of UTF-8 taken for Latin-1; real files were seen with two
_INVISIBLE = dict.fromkeys(map(ord, "\u00ad\u200b\u200e\u200f\u2060\ufeff"))  # soft hyphen, marks, joiner, BOM
_WINDOWS_1252 = {  # what bytes 0x80 to 0x9F, read as Latin-1, were in Windows
    code: bytes([code]).decode("cp1252") for code in range(0x80, 0xA0) if code not in (0x81, 0x8D, 0x8F, 0x90, 0x9D)
}
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HIGH_CONTROLS = re.compile(r"[\x80-\x9f]")
_JAPANESE = re.compile(r"[\x20-\x7e\u3000-\u30ff\u4e00-\u9fff\uff01-\uff5e]+")  # kana, kanji, full-width forms
_KANA = re.compile(r"[\u3041-\u30f6]")
_FEWEST_KANA = 2
# Letters that two bytes give, from beyond Latin, inside a Latin word: "CAFÉ’S" was right, and is no "CAFɒS".
_MIXED = re.compile(r"[A-Za-z][\u0250-\u02ff\u0370-\u07ff]|[\u0250-\u02ff\u0370-\u07ff][A-Za-z]")


def clean(text: str) -> str:
    """One line of visible, composed text, in the encoding that it was written in where that is certain."""
    if text.isascii() and text.isprintable():  # most texts
        return " ".join(text.split())
    if not text.isascii():
        text = _repair(text).encode("utf-8", "ignore").decode("utf-8")  # no lone surrogates
        text = unicodedata.normalize("NFC", text.translate(_INVISIBLE))
    return " ".join(_CONTROLS.sub(" ", text).split())


def _repair(text: str) -> str:
    """Undo UTF-8, Shift-JIS and Windows-1252 that were read as Latin-1, each where nothing else fits.

    UTF-8 is told by its form, which other texts hardly ever have. Shift-JIS and Windows-1252 are told by
    control characters (U+0080 to U+009F), which no text holds, and Shift-JIS must give kana. Bytes of Windows-1251,
    KOI8-R, GBK and their like fit several encodings equally well, and stay as they are.
    """
    for _ in range(_ROUNDS):
        try:
            repaired = _as_read(text).decode("utf-8")
        except UnicodeError:  # the usual case: it was right
            break
        if _MIXED.search(repaired):
            break
        text = repaired
    if _HIGH_CONTROLS.search(text):
        try:
            japanese = text.encode("latin-1").decode("cp932")
        except UnicodeError:
            japanese = ""
        if _JAPANESE.fullmatch(japanese) and len(_KANA.findall(japanese)) >= _FEWEST_KANA:
            return japanese
        return text.translate(_WINDOWS_1252)
    return text


def _as_read(text: str) -> bytes:
    """The bytes that became `text` when they were read as Windows-1252 or Latin-1; UnicodeError if none could."""
    if text.isascii():
        raise UnicodeError("nothing to undo")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return b"".join(_byte(letter) for letter in text)


def _byte(letter: str) -> bytes:
    try:
        return letter.encode("cp1252")
    except UnicodeEncodeError:  # the five bytes that Windows-1252 leaves free
        return letter.encode("latin-1")
