"""What of a tree is taken: include and exclude rules with gitignore's patterns.

The last rule that matches an entry, or a folder above it, decides. A pattern is
cut at its slashes and tested name by name on the way down, so that a folder knows
which rules can still match in it: most entries are held against few tests or none.
"""

from __future__ import annotations

from typing import Callable, Collection, List, NamedTuple, Sequence, Tuple

from engine.agent.wire import AgentError, show

INCLUDE, EXCLUDE = "include", "exclude"

#: No rule has matched; as an index it is the last of `Filter._taken`.
NONE = -1

#: POSIX classes as git knows them: ASCII only.
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

Fits = Callable[[str], object]


class Filter:
    """Include and exclude rules, in order.

    Without rules all is taken. If the first rule is an include, only what an include
    matches is taken. Paths are relative with `/`, never the top itself. Answers do not
    depend on the order of the questions; they come fastest folder by folder.
    """

    def __init__(self, rules: Sequence[Sequence[str]]) -> None:
        """Each rule is "include" or "exclude", and a pattern; BAD_REQUEST if one makes no sense."""
        self._rules = [_Rule(verb, pattern) for verb, pattern in rules]
        self._only = bool(self._rules) and self._rules[0].include
        self._taken = [rule.include for rule in self._rules] + [not self._only]
        waiting = [(index, rule, (0,)) for index, rule in enumerate(self._rules)]
        self._way = [_Folder("", NONE, waiting[::-1])]

    @property
    def carries_folders(self) -> bool:
        """Whether folders are carried for their own sake, also empty ones."""
        return not self._only

    def takes(self, path: str, folder: bool) -> bool:
        """Whether an entry is part of the tree for its own sake."""
        if not self._rules:
            return True
        above, _, name = path.rpartition("/")
        return self._taken[self._folder(above).decides(name, folder)]

    def enters(self, path: str) -> bool:
        """Whether a folder has to be looked into, though it may not itself be carried.

        False only if nothing below it can be taken.
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
        here = self._way[-1]
        if here.path == path:
            return here
        # Folders are walked depth first: the way to the last one leads most of the way here.
        while here.path and not f"{path}/".startswith(f"{here.path}/"):
            self._way.pop()
            here = self._way[-1]
        down = path[len(here.path) :].strip("/")
        for name in down.split("/") if down else ():
            here = here.enter(name)
            self._way.append(here)
        return here


class _Folder:
    """What the rules have come to in one folder.

    `last` is the last rule that matched it or a folder above it, and so all in it.
    `waiting` are the later rules that can match in it or below, the last one first,
    each with the places in its pattern that have been reached.
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
        """The last rule that matches an entry of it, or a folder above the entry; or NONE."""
        for index, folders_only, fits in self.tests:
            if (folder or not folders_only) and fits(name):
                return index
        return self.last

    def enter(self, name: str) -> _Folder:
        """The folder of that name in it."""
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
    """A verb and a pattern, the pattern as one part for each name in it."""

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
        self.parts: List[_Part] = []
        for number, name in enumerate(names, 1):
            if name in ("", ".", ".."):
                raise _refusal(pattern, 'has an empty name, "." or ".." in it, which no path has')
            # At the end `**` is as good as `*`, since what matches a folder holds for all below.
            if number < len(names) and len(name) > 1 and not name.strip("*"):
                deep = True
            else:
                self.parts.append(_Part(deep, _test(name, pattern)))
                deep = False

    def below(self, places: Collection[int], name: str) -> Collection[int]:
        """The places reached in a folder of that name, where its parent had reached `places`.

        A place is the number of the part that the next name is held against.
        """
        reached = set()
        for place in places:
            part = self.parts[place]
            if part.deep:
                reached.add(place)
            if place < len(self.parts) - 1 and part.fits(name):
                reached.add(place + 1)
        return reached


_Waiting = Tuple[int, _Rule, Collection[int]]


def _refusal(pattern: str, why: str) -> AgentError:
    return AgentError("BAD_REQUEST", f"the pattern {show(pattern)} {why}")


def _anything(_name: str) -> bool:
    return True


def _test(glob: str, pattern: str) -> Fits:
    """The test for one name, where `*`, `?`, brackets and backslashes have their meaning."""
    if not glob.strip("*"):
        return _anything
    if not set(glob) & set("*?[\\"):
        return glob.__eq__
    import re  # Costs start-up time that most transfers need not pay.

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
    # Where a piece between two stars first fits is as good as any later place. The
    # lookahead keeps `re` from trying those too, which could take longer than a life.
    for number, piece in enumerate(pieces[1:-1]):
        text += f"(?=(?P<g{number}>.*?{piece}))(?P=g{number})"
    if len(pieces) > 1:
        text += ".*" + pieces[-1]
    return re.compile(text, re.DOTALL).fullmatch


def _bracket(glob: str, at: int, pattern: str) -> Tuple[str, int]:
    """The brackets that open before `at` as a regular expression, and where they end."""
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
                raise _refusal(pattern, f"asks for [:{show(kind)}:], which is no class")
            items += _CLASSES[kind]
            continue
        items += re.escape(low[-1])
        if high:
            if high[-1] < low[-1]:
                raise _refusal(pattern, f"has a range that runs backwards, {show(found.group())}")
            items += "-" + re.escape(high[-1])
    return f"[{'^' if negated else ''}{items}]", at + 1
