"""The include and exclude rules that decide which entries are taken; patterns as in gitignore.

The last rule that matches an entry, or a folder above it, decides. A pattern is cut at its
slashes and tested name by name on the way down. So each folder knows which rules can still match
in it: most entries are tested against few rules or none.
"""

from __future__ import annotations

from engine.agent.typed import TYPE_CHECKING, NamedTuple
from engine.agent.wire import AgentError, show

if TYPE_CHECKING:
    from typing import Callable, Collection, Sequence

    Fits = Callable[[str], object]
    _Waiting = tuple[int, "_Rule", Collection[int]]

INCLUDE, EXCLUDE = "include", "exclude"

#: The index if no rule matches: as such, the last of `Filter._taken`.
NONE = -1

#: POSIX classes as git defines them: ASCII only.
_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r" \t-\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}

#: One item between brackets: a class, a character or a range; a backslash escapes.
_ITEM = r"\[:(?P<kind>[^]]*):\]|(?P<low>\\.|[^\\])(?:-(?P<high>\\.|[^]\\]))?"


class Filter:
    """Include and exclude rules, in order.

    Without rules everything is taken. If the first rule is an include, only the entries that an
    include matches are taken. Paths are relative with `/`, never the top itself. The order of
    calls does not change a result; the calls are fastest folder by folder.
    """

    def __init__(self, rules: Sequence[Sequence[str]]) -> None:
        """Each rule is a verb and a pattern; raises BAD_REQUEST if one makes no sense."""
        self._rules = [_Rule(verb, pattern) for verb, pattern in rules]
        self._only = bool(self._rules) and self._rules[0].include
        self._taken = [rule.include for rule in self._rules] + [not self._only]
        waiting = [(index, rule, (0,)) for index, rule in enumerate(self._rules)]
        self._chain = [_Folder("", NONE, waiting[::-1])]

    @property
    def carries_folders(self) -> bool:
        """True if folders are carried for their own sake, even empty ones."""
        return not self._only

    def takes(self, path: str, folder: bool) -> bool:
        """True if an entry is carried for its own sake."""
        if not self._rules:
            return True
        above, _, name = path.rpartition("/")
        return self._taken[self._folder(above).decides(name, folder)]

    def enters(self, path: str) -> bool:
        """True if a folder must be scanned, though it may not itself be carried.

        False only if no entry below it can be taken.
        """
        if not self._rules:
            return True
        above, _, name = path.rpartition("/")
        here = self._folder(above)
        last = here.decides(name, True)
        return self._taken[last] or any(
            rule.include and index > last and rule.below(places, name)
            for index, rule, places in here.waiting
        )

    def _folder(self, path: str) -> _Folder:
        here = self._chain[-1]
        if here.path == path:
            return here
        # The scan goes depth first, so this folder has most of its chain in common with the last.
        while here.path and not f"{path}/".startswith(f"{here.path}/"):
            self._chain.pop()
            here = self._chain[-1]
        down = path[len(here.path) :].strip("/")
        for name in down.split("/") if down else ():
            here = here.enter(name)
            self._chain.append(here)
        return here


class _Folder:
    """The state of the rules in one folder.

    `last` is the last rule that matched the folder or one above it, and so everything in it.
    `waiting` are the later rules that can match in it or below, the last one first, each with the
    places in its pattern that are reached.
    """

    __slots__ = ("last", "path", "tests", "waiting")

    def __init__(self, path: str, last: int, waiting: Sequence[_Waiting]) -> None:
        self.path, self.last, self.waiting = path, last, waiting
        self.tests = [
            (index, rule.folders_only, rule.parts[-1].fits)
            for index, rule, places in waiting
            if len(rule.parts) - 1 in places
        ]

    def decides(self, name: str, folder: bool) -> int:
        """The index of the last rule that matches an entry, or a folder above it; or NONE."""
        for index, folders_only, fits in self.tests:
            if (folder or not folders_only) and fits(name):
                return index
        return self.last

    def enter(self, name: str) -> _Folder:
        """The state in the folder of that name in this one."""
        last = self.decides(name, True)
        waiting = []
        for index, rule, places in self.waiting:
            reached = rule.below(places, name) if index > last else ()
            if reached:
                waiting.append((index, rule, reached))
        return _Folder(f"{self.path}/{name}" if self.path else name, last, waiting)


class _Part(NamedTuple):
    """A name in a pattern; `deep` if any number of folders may come before it."""

    deep: bool
    fits: Fits


class _Rule:
    """A verb and a pattern; the pattern has a part for each name in it."""

    __slots__ = ("folders_only", "include", "parts")

    def __init__(self, verb: str, pattern: str) -> None:
        if verb not in (INCLUDE, EXCLUDE):
            raise AgentError("BAD_REQUEST", f"a rule says include or exclude, not {show(verb)}")
        self.include = verb == INCLUDE
        self.folders_only = pattern.endswith("/")
        body = pattern[:-1] if self.folders_only else pattern
        # A slash at the start or in the middle ties the pattern to the top of the tree.
        deep = "/" not in body
        names = (body[1:] if body.startswith("/") else body).split("/")
        self.parts: list[_Part] = []
        for number, name in enumerate(names, 1):
            if name in ("", ".", ".."):
                raise _refusal(pattern, 'has an empty name, "." or ".." in it, which no path has')
            # A last `**` means the same as `*`: a match of a folder holds for everything below.
            if number < len(names) and len(name) > 1 and not name.strip("*"):
                deep = True
            else:
                self.parts.append(_Part(deep, _test(name, pattern)))
                deep = False

    def below(self, places: Collection[int], name: str) -> Collection[int]:
        """The places reached in a folder of that name, if its parent had reached `places`.

        A place is the number of the part that the next name is tested against.
        """
        reached = set()
        for place in places:
            part = self.parts[place]
            if part.deep:
                reached.add(place)
            if place < len(self.parts) - 1 and part.fits(name):
                reached.add(place + 1)
        return reached


def _refusal(pattern: str, why: str) -> AgentError:
    return AgentError("BAD_REQUEST", f"the pattern {show(pattern)} {why}")


def _anything(_name: str) -> bool:
    return True


def _test(glob: str, pattern: str) -> Fits:
    """Make the test for one name, with the meanings of `*`, `?`, brackets and backslashes."""
    if not glob.strip("*"):
        return _anything
    if not set(glob) & set("*?[\\"):
        return glob.__eq__
    import re  # Loading it takes time at the start, and most transfers do not need it.

    pieces, at = [""], 0
    while at < len(glob):
        char, at = glob[at], at + 1
        if char == "*":
            pieces.append("")
        elif char == "?":
            pieces[-1] += "."
        elif char == "[":
            text, at = _bracket(glob, at, pattern)
            pieces[-1] += text
        elif char == "\\":
            if at == len(glob):
                raise _refusal(pattern, "ends a name in a \\: for the character itself write \\\\")
            pieces[-1] += re.escape(glob[at])
            at += 1
        else:
            pieces[-1] += re.escape(char)
    text = pieces[0]
    # A piece between two stars may stand at the first place where it fits. The lookahead keeps
    # `re` from trying later places, too, which could take longer than a life.
    for number, piece in enumerate(pieces[1:-1]):
        text += f"(?=(?P<g{number}>.*?{piece}))(?P=g{number})"
    if len(pieces) > 1:
        text += ".*" + pieces[-1]
    return re.compile(text, re.DOTALL).fullmatch


def _bracket(glob: str, at: int, pattern: str) -> tuple[str, int]:
    """Translate the brackets that open before `at` to a regular expression; also their end."""
    import re

    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    items = ""
    while not items or glob[at : at + 1] != "]":
        found = re.compile(_ITEM, re.DOTALL).match(glob, at)
        if found is None:
            raise _refusal(pattern, "has a [ without its ]: for the character itself write \\[")
        at = found.end()
        kind, low, high = found.group("kind", "low", "high")
        if kind is not None:
            if kind not in _CLASSES:
                raise _refusal(pattern, f"names the class [:{show(kind)}:], which does not exist")
            items += _CLASSES[kind]
            continue
        items += re.escape(low[-1])
        if high:
            if high[-1] < low[-1]:
                raise _refusal(pattern, f"has a range that runs backwards, {show(found.group())}")
            items += "-" + re.escape(high[-1])
    return f"[{'^' if negated else ''}{items}]", at + 1
