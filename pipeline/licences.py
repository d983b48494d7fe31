"""Licences under one name each: what tags and tables call "CC BY-SA 3.0" in a dozen ways."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

_DEED = re.compile(r"creativecommons\.org/(?:licenses|publicdomain)/([a-z+-]+)(?:/([0-9]\.[0-9]))?", re.IGNORECASE)
_NAME = re.compile(
    r"(?:CC|Creative Commons)[\s_-]*(?:Licen[cs]e[\s:_-]*)?((?:BY|Attribution)(?:[\s_-]*(?:NC|ND|SA|Non-?\s?Commercial"
    r"|No-?\s?Deriv(?:ative)?s?(?:\s?Works)?|Share-?\s?Alike))*)[\s_,-]*(?:v(?:ersion)?\.?\s?)?([0-9]\.[0-9])?"
    r"(?:[\s_-]*(?:International|Unported|Generic|Licen[cs]e))*",
    re.IGNORECASE,
)
_TERM = re.compile(r"(BY|Attribution)|(NC|Non-?\s?Commercial)|(ND|No-?\s?Deriv)|(SA|Share-?\s?Alike)", re.IGNORECASE)
_ZERO = re.compile(r"CC[\s_-]*(?:0|Zero)(?:[\s_-]*(?:v?1\.0|Universal))*", re.IGNORECASE)


def licence_name(text: str) -> str:
    """The SPDX name of a Creative Commons licence, "CC-BY-SA-3.0", by its link or name; any other text as it is."""
    if found := _DEED.search(text):
        kind, version = found[1].lower(), found[2]
        if kind in ("zero", "mark"):
            return "CC0-1.0" if kind == "zero" else "CC-PDM-1.0"
        return "-".join(part for part in ("CC", kind.upper(), version) if part)
    if _ZERO.fullmatch(text):
        return "CC0-1.0"
    if found := _NAME.fullmatch(text):
        terms = [
            name for match in _TERM.finditer(found[1]) for name, hit in zip(_TERMS, match.groups(), strict=True) if hit
        ]
        return "-".join(["CC", *sorted(set(terms), key=_TERMS.index), *([found[2]] if found[2] else [])])
    return text


def licence_in(copyright_notice: str) -> str | None:
    """The licence that a copyright notice links to ("© 2004 X. Licensed to the public under http://…"), if any."""
    return licence_name(copyright_notice) if _DEED.search(copyright_notice) else None


def is_among(licence: str | None, wanted: Iterable[str]) -> bool:
    """Whether a licence is one of those wanted, in any spelling: names, with or without a version, or patterns.

    "CC-BY" is CC-BY of any version and not CC-BY-SA; "CC-BY*" is both.
    """
    name = licence_name(licence or "").casefold()
    names = {name, _VERSION.sub("", name)} - {""}
    patterns = [licence_name(each.strip()).casefold() for each in wanted]
    return any(fnmatchcase(each, pattern) for each in names for pattern in patterns)


_VERSION = re.compile(r"-[0-9]+(\.[0-9]+)*$")
_TERMS = ("BY", "NC", "ND", "SA")  # the order of SPDX: CC-BY-NC-SA
