"""NameCheck: finds the names that a target cannot hold, before anything is sent there.

The target's agent found its rules (`engine.agent.target.name_rules`). The check cannot foresee
everything: file systems fold by Unicode tables of their own. So it reports too many names rather
than too few (NTFS keeps apart `Straße` and `STRASSE`, here they are one). A name that it misses is
still refused, as one entry, where it is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence

from engine.agent.target.name_rules import NameRules
from engine.agent.wire import STAGING_PREFIX, is_staging, show

#: The most names that a sentence shows of those that become one.
_SHOWN = 3
_RESERVED = STAGING_PREFIX.encode()
_64_BITS = (1 << 64) - 1


class NameCheck:
    """Checks the names of a source against the rules of a target.

        check = NameCheck(NameRules(*answer))
        for each folder: problems = check.check(names)

    Give all names of a folder that are to be sent in one call: of two names that become one, the
    first can only be held back once the second is known. A reported name must not be sent; nor,
    if it is a folder's, the names below it.
    """

    def __init__(self, rules: NameRules) -> None:
        self._most = rules.name_max
        plain = not (rules.folds_case or rules.normalises or rules.utf8_only)
        self._fold = None if plain else _folding(rules)

    @property
    def compares(self) -> bool:
        """True if several names can become one at the target."""
        return self._fold is not None

    def alone(self, name: bytes) -> tuple[str, str] | None:
        """Return code and sentence of a name that is impossible whatever lies beside it."""
        folded = self._folded(name)
        return folded if isinstance(folded, tuple) else None

    def number(self, name: bytes) -> int:
        """Return a number that names have in common if they become one; for names that may stand.

        It is Python's own hash, with a key chosen at random as a process starts. Names with one
        number may be two all the same: compare those.
        """
        return hash(self._folded(name)) & _64_BITS

    def check(self, names: Sequence[bytes]) -> dict[int, tuple[str, str]]:
        """Return code and sentence for every impossible name, by its place in `names`.

        NAME_TOO_LONG, NAME_NOT_POSSIBLE (not UTF-8), NAME_RESERVED (a staging folder's), or
        NAME_COLLISION for each name of a group that would become one. The next call remembers
        nothing of this folder.
        """
        return dict(self.problems(names))

    def problems(self, names: Sequence[bytes]) -> Iterator[tuple[int, tuple[str, str]]]:
        """Yield what `check` returns: a lying source has many long names become one."""
        first: dict[bytes, int] = {}
        groups: dict[int, list[int]] = {}
        for place, name in enumerate(names):
            folded = self._folded(name)
            if isinstance(folded, tuple):  # It is not sent, so it collides with no other.
                yield place, folded
            elif self._fold is not None:
                before = first.setdefault(folded, place)
                if before != place:
                    groups.setdefault(before, [before]).append(place)
        for group in groups.values():
            for place in group:
                yield place, _collision(names, group, place)

    def _folded(self, name: bytes) -> bytes | tuple[str, str]:
        """Return what is the same for names that become one; for an impossible one, why."""
        if len(name) > self._most:
            return _too_long(name, self._most)
        if self._fold is None:
            return name
        try:
            folded = self._fold(name)
        except UnicodeDecodeError:
            return _not_utf8(name)
        if folded.startswith(_RESERVED) and is_staging(os.fsdecode(folded)):
            return _reserved(name)
        return folded


def _folding(rules: NameRules) -> Callable[[bytes], bytes]:
    """Make a function that gives the same result for all names that are one at the target.

    Canonical caseless matching (Unicode 3.13, D145) where both rules hold. Of a name that is not
    UTF-8 it folds only the ASCII; it raises UnicodeDecodeError if names must be UTF-8.
    """
    import unicodedata  # Large, and most targets do not need it.

    folds, normalises = rules.folds_case, rules.normalises

    def fold(name: bytes) -> bytes:
        if name.isascii():
            return name.lower() if folds else name
        try:
            text = name.decode()
        except UnicodeDecodeError:
            if rules.utf8_only:
                raise
            return name.lower() if folds else name
        if normalises:
            text = unicodedata.normalize("NFD", text)
        if folds:
            text = text.casefold()
            if normalises:
                text = unicodedata.normalize("NFD", text)
        return text.encode()

    return fold


def _shown(name: bytes) -> str:
    return show(os.fsdecode(name))


def _too_long(name: bytes, most: int) -> tuple[str, str]:
    text = f"{_shown(name)} has {len(name)} bytes; the target takes {most}: shorten it"
    return "NAME_TOO_LONG", text


def _not_utf8(name: bytes) -> tuple[str, str]:
    sentence = f"{_shown(name)} is not UTF-8, and the target takes only UTF-8: rename it"
    return "NAME_NOT_POSSIBLE", sentence


def _reserved(name: bytes) -> tuple[str, str]:
    sentence = f"{_shown(name)} would be a name that Ketter reserves at the target: rename it"
    return "NAME_RESERVED", sentence


def _collision(names: Sequence[bytes], group: list[int], place: int) -> tuple[str, str]:
    others = [other for other in group[: _SHOWN + 1] if other != place][:_SHOWN]
    texts = [_with_marks_escaped(names[other]) for other in (place, *others)]
    more = len(group) - len(texts)
    if more:
        texts.append(f"{more} more")
    text = f"{', '.join(texts[:-1])} and {texts[-1]}"
    return "NAME_COLLISION", f"{text} would be one at the target: rename all but one"


def _with_marks_escaped(name: bytes) -> str:
    """A name with combining marks escaped: two forms of one letter would look the same."""
    import unicodedata

    combining = unicodedata.combining
    return "".join(ascii(c)[1:-1] if combining(c) else c for c in _shown(name))
