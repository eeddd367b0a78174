"""Names that a target cannot hold, found before anything is sent there.

The target's agent probes its staging folder, the source checks each folder's
names against what was found. It cannot foresee everything: file systems fold by
Unicode tables of their own. So this errs towards reporting (NTFS keeps apart
`Straße` and `STRASSE`, here they are one), and what it misses is still refused,
as one entry, where it is written.
"""

from __future__ import annotations

import errno
import os
from typing import Callable, NamedTuple, Sequence

from engine.agent.wire import show

#: What a file system says of a name that it cannot hold.
_IMPOSSIBLE = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

#: The longest UTF-8 form of a UTF-16 unit, in which some file systems count.
_UNIT = "\u3042".encode()
#: Names that a sentence shows of those that become one.
_SHOWN = 3


class NameRules(NamedTuple):
    """What a folder makes of names; it travels as a JSON list."""

    #: Bytes of the longest name it may hold.
    name_max: int
    #: Names that differ by case only are one.
    folds_case: bool
    #: Names that differ by Unicode normalisation only are one.
    normalises: bool
    #: Names must be UTF-8.
    utf8_only: bool = False


def probe(fd: int) -> NameRules:
    """The rules of an open folder that is ours to write in, by trying them there.

    Up to four empty files are made and removed again, one at a time. OSError if
    not even a plain name can be written. Folders that exist below may have other rules.
    """
    # Random, so that what is found under another spelling is not somebody else's. An
    # "a" comes first: should we die here, the next attempt removes it (`Staging.prepare`).
    name = b"a-Probe-" + os.urandom(8).hex().encode()
    folds = _same(fd, name, name.swapcase())
    if folds is None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), os.fsdecode(name))
    most = os.fpathconf(fd, "PC_NAME_MAX")
    # Where a name may be so many units, not bytes, none of more bytes than this can be held.
    units = name + _UNIT * (most - len(name))
    if 0 < most < 1024 and _same(fd, units, units) is not None:
        most *= len(_UNIT)
    return NameRules(
        name_max=most if most > 0 else 1 << 16,
        folds_case=folds,
        normalises=bool(_same(fd, name + "e\u0301".encode(), name + "\u00e9".encode())),
        utf8_only=_same(fd, name + b"\xff", name + b"\xff") is None,
    )


def _same(fd: int, name: bytes, other: bytes) -> bool | None:
    """Whether a file made under the one name is found under the other; None if none can be made."""
    try:
        os.close(os.open(name, _NEW, 0o600, dir_fd=fd))
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            return None
        raise
    try:
        os.stat(other, dir_fd=fd, follow_symlinks=False)
        return True
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno in _IMPOSSIBLE:
            return False
        raise
    finally:
        os.unlink(name, dir_fd=fd)


class NameCheck:
    """Checks the names of a source against the rules of a target.

        check = NameCheck(NameRules(*answer))
        for each folder: problems = check.check(names)

    A folder's names must be given together, all that are to be sent: of two that
    become one, the first can only be held back once the second is known. A name
    that is reported must not be sent, nor, if it is a folder's, what is below it.
    """

    def __init__(self, rules: NameRules) -> None:
        self._most = rules.name_max
        plain = not (rules.folds_case or rules.normalises or rules.utf8_only)
        self._fold = None if plain else _folding(rules)

    def check(self, names: Sequence[bytes]) -> dict[int, tuple[str, str]]:
        """A code and a sentence for every name that cannot be, by its place in `names`.

        NAME_TOO_LONG, NAME_NOT_POSSIBLE (not UTF-8), or NAME_COLLISION for each
        of those that would become one. Nothing is remembered for the next folder.
        """
        problems = {
            place: _too_long(name, self._most)
            for place, name in enumerate(names)
            if len(name) > self._most
        }
        if self._fold is None:
            return problems
        first: dict[bytes, int] = {}
        twins: dict[int, list[int]] = {}
        for place, name in enumerate(names):
            if place in problems:  # It will not be there to collide with.
                continue
            try:
                folded = self._fold(name)
            except UnicodeDecodeError:
                problems[place] = _not_utf8(name)
                continue
            before = first.setdefault(folded, place)
            if before != place:
                twins.setdefault(before, [before]).append(place)
        for group in twins.values():
            for place in group:
                problems[place] = _collision(names, group, place)
        return problems


def _folding(rules: NameRules) -> Callable[[bytes], bytes]:
    """A function that makes one of all names that are one at the target.

    Canonical caseless matching (Unicode 3.13, D145) where both rules hold. What is
    not UTF-8 raises UnicodeDecodeError if it must be, else only its ASCII is folded.
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
    return "NAME_NOT_POSSIBLE", f"{_shown(name)} is not UTF-8, as the target wants it: rename it"


def _collision(names: Sequence[bytes], group: list[int], place: int) -> tuple[str, str]:
    twins = [other for other in group[: _SHOWN + 1] if other != place][:_SHOWN]
    texts = [_told_apart(names[twin]) for twin in (place, *twins)]
    more = len(group) - len(texts)
    if more:
        texts.append(f"{more} more")
    text = f"{', '.join(texts[:-1])} and {texts[-1]}"
    return "NAME_COLLISION", f"{text} would be one at the target: rename all but one"


def _told_apart(name: bytes) -> str:
    """A name with combining marks escaped: two forms of one letter would look the same."""
    import unicodedata

    combining = unicodedata.combining
    return "".join(ascii(c)[1:-1] if combining(c) else c for c in _shown(name))
