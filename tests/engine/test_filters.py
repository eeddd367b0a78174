"""Include and exclude rules: gitignore's patterns, and git itself as the judge of them."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from engine.agent.source.filters import Filter
from engine.agent.wire import AgentError

FILE, FOLDER = False, True
YES, NO = True, False


def rules(*texts: str) -> list[tuple[str, str]]:
    """Rules written as `- pattern` for exclude and `+ pattern` for include."""
    return [({"-": "exclude", "+": "include"}[text[0]], text[2:]) for text in texts]


TABLE = [
    # No rules, and rules that match nothing.
    ([], "a/b", FILE, YES),
    ([], "a", FOLDER, YES),
    (["- x"], "a/b", FILE, YES),
    # Without a slash: the last name, at any depth, and all below a folder of that name.
    (["- *.o"], "a.o", FILE, NO),
    (["- *.o"], "lib/deep/a.o", FILE, NO),
    (["- *.o"], "a.oo", FILE, YES),
    (["- hello.*"], "a/hello.java", FILE, NO),
    (["- tmp"], "tmp", FOLDER, NO),
    (["- tmp"], "a/tmp/b/c", FILE, NO),
    (["- tmp"], "a/tmp/b", FOLDER, NO),
    (["- tmp"], "tmpx", FILE, YES),
    (["- tmp"], "xtmp", FILE, YES),
    (["- tmp"], "TMP", FILE, YES),
    # A slash at the start or in the middle ties it to the top.
    (["- /hello.*"], "hello.c", FILE, NO),
    (["- /hello.*"], "a/hello.c", FILE, YES),
    (["- doc/frotz"], "doc/frotz", FILE, NO),
    (["- doc/frotz"], "a/doc/frotz", FILE, YES),
    (["- /doc/frotz"], "doc/frotz", FILE, NO),
    (["- doc/frotz/"], "doc/frotz", FOLDER, NO),
    (["- doc/frotz/"], "a/doc/frotz", FOLDER, YES),
    (["- doc/frotz"], "doc", FOLDER, YES),
    (["- doc/frotz"], "doc/frotzen", FILE, YES),
    # A slash at the end: folders only, and all below them.
    (["- frotz/"], "frotz", FOLDER, NO),
    (["- frotz/"], "a/frotz", FOLDER, NO),
    (["- frotz/"], "frotz", FILE, YES),
    (["- frotz/"], "a/frotz/b", FILE, NO),
    (["- /frotz/"], "a/frotz", FOLDER, YES),
    (["- */"], "a", FILE, YES),
    (["- */"], "a/b", FILE, NO),
    # `*` and `?` stop at slashes.
    (["- foo/*"], "foo/test.json", FILE, NO),
    (["- foo/*"], "foo/bar", FOLDER, NO),
    (["- foo/*.c"], "foo/bar/hello.c", FILE, YES),
    (["- foo/*"], "foo", FOLDER, YES),
    (["- a?b"], "a/b", FILE, YES),
    (["- /a?b"], "a/b", FILE, YES),
    (["- a?b"], "x/a-b", FILE, NO),
    (["- a?b"], "ab", FILE, YES),
    (["- *"], "a", FILE, NO),
    (["- /*"], "a/b", FILE, NO),
    (["- *"], ".hidden", FILE, NO),
    (["- a*b*c"], "a-b-bc", FILE, NO),
    (["- a*b*c"], "abc", FILE, NO),
    (["- a*b*c"], "ac-b", FILE, YES),
    # `**` as a whole name stands for any number of names.
    (["- **/foo"], "foo", FILE, NO),
    (["- **/foo"], "a/b/foo", FILE, NO),
    (["- **/foo/bar"], "foo/bar", FILE, NO),
    (["- **/foo/bar"], "x/foo/bar", FILE, NO),
    (["- **/foo/bar"], "foo/x/bar", FILE, YES),
    (["- abc/**"], "abc", FOLDER, YES),
    (["- abc/**"], "abc/x/y", FILE, NO),
    (["- abc/**"], "x/abc/y", FILE, YES),
    (["- abc/**/"], "abc/x", FILE, YES),
    (["- abc/**/"], "abc/x/y", FILE, NO),
    (["- a/**/b"], "a/b", FILE, NO),
    (["- a/**/b"], "a/x/b", FILE, NO),
    (["- a/**/b"], "a/x/y/b", FILE, NO),
    (["- a/**/b"], "a/xb", FILE, YES),
    (["- a/**/b"], "x/a/b", FILE, YES),
    (["- a/**/b/**/c"], "a/b/x/b/c", FILE, NO),
    (["- a/**/b/c"], "a/b/b/c", FILE, NO),
    (["- a/**/**/b"], "a/b", FILE, NO),
    (["- **"], "a/b", FILE, NO),
    (["- **/"], "a", FILE, YES),
    (["- **/"], "a", FOLDER, NO),
    # Other stars in a row are as good as one; git's own code lets this one cross slashes.
    (["- a**b"], "a/b", FILE, YES),
    (["- a**b"], "x/a--b", FILE, NO),
    (["- foo**/bar"], "foox/bar", FILE, NO),
    (["- foo**/bar"], "foox/y/bar", FILE, YES),
    # Brackets.
    (["- *.[oa]"], "lib.a", FILE, NO),
    (["- *.[oa]"], "lib.c", FILE, YES),
    (["- [a-c]x"], "bx", FILE, NO),
    (["- [a-c]x"], "dx", FILE, YES),
    (["- [!a-c]x"], "dx", FILE, NO),
    (["- [!a-c]x"], "bx", FILE, YES),
    (["- [^a]"], "^", FILE, NO),
    (["- [^a]"], "a", FILE, YES),
    (["- a[!b]c"], "a/c", FILE, YES),
    (["- []]"], "]", FILE, NO),
    (["- [!]]"], "]", FILE, YES),
    (["- [a-]"], "-", FILE, NO),
    (["- [-a]"], "b", FILE, YES),
    (["- [+--]"], ",", FILE, NO),
    (["- [a-c-e]"], "d", FILE, YES),
    (["- [a-c-e]"], "-", FILE, NO),
    (["- [a\\]x]"], "x", FILE, NO),
    (["- [[x]"], "[", FILE, NO),
    (["- [[:digit:]_]"], "7", FILE, NO),
    (["- [[:digit:]_]"], ":", FILE, YES),
    (["- [![:space:]]"], " ", FILE, YES),
    (["- [&&~~||]"], "|", FILE, NO),
    # A backslash takes the meaning away, also where there is none.
    (["- \\*"], "*", FILE, NO),
    (["- \\*"], "a", FILE, YES),
    (["- a\\?"], "ab", FILE, YES),
    (["- \\[a]"], "[a]", FILE, NO),
    (["- \\a"], "a", FILE, NO),
    (["- a\\\\b"], "a\\b", FILE, NO),
    # What means something to git's files and nothing here, and to `re`.
    (["- !a"], "!a", FILE, NO),
    (["- #a"], "#a", FILE, NO),
    (["- \\!a"], "!a", FILE, NO),
    (["- a "], "a", FILE, YES),
    (["- a "], "a ", FILE, NO),
    (["-  a"], "x/ a", FILE, NO),
    (["- a.b"], "aXb", FILE, YES),
    (["- a..b"], "a..b", FILE, NO),
    (["- (a|b)+$"], "(a|b)+$", FILE, NO),
    (["- -rf"], "x/-rf", FILE, NO),
    (["- {a,b}"], "a", FILE, YES),
    # Names are any bytes, and are matched from their first to their last.
    (["- a*b"], "a\nb", FILE, NO),
    (["- a?b"], "a\nb", FILE, NO),
    (["- a"], "a\n", FILE, YES),
    (["- [a]"], "a\n", FILE, YES),
    (["- b*"], "a\nb", FILE, YES),
    (["- *.txt"], os.fsdecode(b"caf\xe9.txt"), FILE, NO),
    (["- " + os.fsdecode(b"caf\xe9*")], os.fsdecode(b"caf\xe9.txt"), FILE, NO),
    (["- caf?"], os.fsdecode(b"caf\xe9"), FILE, NO),
    (["- caf?"], "café", FILE, NO),
    (["- caf\N{LATIN SMALL LETTER E WITH ACUTE}"], "cafe\N{COMBINING ACUTE ACCENT}", FILE, YES),
    # The last rule that matches decides, whatever it is.
    (["- *.html", "+ foo.html"], "a/foo.html", FILE, YES),
    (["- *.html", "+ foo.html"], "a/bar.html", FILE, NO),
    (["+ foo.html", "- *.html"], "foo.html", FILE, NO),
    (["- a", "+ a", "- a"], "a", FILE, NO),
    (["- a", "+ a", "- a", "+ a"], "a", FILE, YES),
    (["- *", "+ *.txt"], "x/y.txt", FILE, YES),
    (["- *", "+ *.txt"], "x", FOLDER, NO),
    # Below an excluded folder a later include still counts, an earlier one does not.
    (["- tmp/", "+ tmp/keep"], "tmp/keep", FILE, YES),
    (["- tmp/", "+ tmp/keep/"], "tmp/keep/a/b", FILE, YES),
    (["- tmp/", "+ tmp/keep"], "tmp/other", FILE, NO),
    (["- tmp/", "+ tmp/keep"], "tmp", FOLDER, NO),
    (["- x", "+ tmp/keep", "- tmp/"], "tmp/keep", FILE, NO),
    (["- a/", "+ *.txt", "- a/b/"], "a/b/c.txt", FILE, NO),
    (["- a/", "+ b/", "- c/"], "a/b/x", FILE, YES),
    (["- a/", "+ b/", "- c/"], "c/b/x", FILE, NO),
    # The first rule an include: only these.
    (["+ *.txt"], "a/b.txt", FILE, YES),
    (["+ *.txt"], "a/b.jpg", FILE, NO),
    (["+ *.txt"], "a", FOLDER, NO),
    (["+ proj/"], "x/proj/a/b", FILE, YES),
    (["+ proj/"], "proj", FOLDER, YES),
    (["+ proj/"], "proj", FILE, NO),
    (["+ proj/", "- *.o"], "proj/a.o", FILE, NO),
    (["+ proj/", "- proj/tmp/", "+ keep"], "proj/tmp/keep", FILE, YES),
    (["+ /a", "+ /b"], "b", FILE, YES),
    (["+ /a", "- /b"], "c", FILE, NO),
    (["- x", "+ *.txt"], "b.jpg", FILE, YES),
]


@pytest.mark.parametrize(("texts", "path", "folder", "taken"), TABLE)
def test_rules_select_the_paths(texts: list[str], path: str, folder: bool, taken: bool) -> None:
    assert Filter(rules(*texts)).takes(path, folder) is taken


@pytest.mark.parametrize(
    ("texts", "path", "entered"),
    [
        ([], "a", YES),
        (["- a"], "b", YES),
        (["- a"], "a", NO),
        (["- a/", "- b"], "x/a", NO),
        (["- a/*"], "a", YES),
        (["+ a", "- a"], "a", NO),
        # An include that comes later, and could match below.
        (["- a", "+ *.txt"], "a", YES),
        (["- a", "+ *.txt"], "a/b", YES),
        (["- a", "+ a/b/c"], "a", YES),
        (["- a", "+ a/b/c"], "a/b", YES),
        (["- a", "+ a/b/c"], "a/x", NO),
        (["- a", "+ b/c"], "a", NO),
        (["- a", "+ a"], "a", YES),
        (["- a", "+ /*/*/c"], "a/b", YES),
        (["- a", "+ /*/*/c"], "a/b/c2", NO),
        (["- a", "+ a/**/c"], "a/b/b/b", YES),
        (["- x", "+ a/b/c", "- a/b"], "a/b", NO),
        (["- tmp", "+ /tmp/**"], "tmp", YES),
        # Only these: no way leads to them everywhere.
        (["+ *.txt"], "a", YES),
        (["+ proj/"], "a", YES),
        (["+ /proj/"], "a", NO),
        (["+ /proj/"], "proj", YES),
        (["+ /proj/"], "proj/a/b", YES),
        (["+ /x/proj/"], "x", YES),
        (["+ /x/proj"], "x/proj2", NO),
        (["+ /x/proj", "- /x/proj/tmp"], "x/proj/tmp", NO),
    ],
)
def test_filters_skip_folders_without_a_match(texts: list[str], path: str, entered: bool) -> None:
    assert Filter(rules(*texts)).enters(path) is entered


@pytest.mark.parametrize(
    ("texts", "carried"), [([], YES), (["- a"], YES), (["- a", "+ b"], YES), (["+ b", "- a"], NO)]
)
def test_a_filter_led_by_an_include_carries_no_folders(texts: list[str], carried: bool) -> None:
    assert Filter(rules(*texts)).carries_folders is carried


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("a[b", "[ without its ]"),
        ("[]", "[ without its ]"),
        ("[!]", "[ without its ]"),
        ("[a\\]", "[ without its ]"),
        ("a[b/c]d", "[ without its ]"),
        ("a\\", "ends a name in a \\"),
        ("a\\/b", "ends a name in a \\"),
        ("[z-a]", "z-a"),
        ("[[:letters:]]", "[:letters:]"),
        ("", "empty name"),
        ("/", "empty name"),
        ("a//b", "empty name"),
        ("a//", "empty name"),
        ("./a", "empty name"),
        ("a/../b", "empty name"),
    ],
)
def test_an_invalid_filter_pattern_is_refused_with_its_reason(pattern: str, says: str) -> None:
    with pytest.raises(AgentError) as refused:
        Filter([("exclude", pattern)])
    assert refused.value.code == "BAD_REQUEST"
    assert says in str(refused.value)
    assert not pattern or pattern in str(refused.value)


def test_a_filter_rule_that_is_neither_include_nor_exclude_is_refused() -> None:
    with pytest.raises(AgentError, match="include or exclude, not keep") as refused:
        Filter([("keep", "a")])
    assert refused.value.code == "BAD_REQUEST"


def test_patterns_with_many_wildcards_match_within_two_seconds() -> None:
    """Patterns that make a matcher which tries everything try for years."""
    many = Filter(rules("- " + "*a" * 60 + "*b", "- " + "**/a/" * 30 + "b", "- [ab]*" * 9))
    started = time.monotonic()
    assert many.takes("a" * 255, FILE)
    assert many.takes("a/" * 500 + "c", FILE)
    assert time.monotonic() - started < 2


# Trees and patterns by dice: short names of few letters, so that patterns often match.
NAMES = ["a", "b", "ab", "ba", "aab", "*", "a*", "]", "!a", "#a", " a", "a ", "-a", ".a", "a..b"]
NAMES += ["a\nb", "\n", "\\", "B", "-", "a]", os.fsdecode(b"\xe9"), os.fsdecode(b"a\xff")]
TOKENS = ["a", "b", "a", "b", "ab", "*", "*", "**", "?", "/", "/", "/", "/**/", "**/", "[ab]"]
TOKENS += ["[!a]", "[^b]", "[]a]", "[a-b]", "[!-b]", "[[:upper:]a]", "\\*", "\\a", "\\\\", "***"]
TOKENS += ["-", " ", ".", "!", "#", "]", "["]


def tree_by(dice: random.Random) -> dict[str, bool]:
    """Paths, and whether each is a folder; a folder before what is in it."""
    tree: dict[str, bool] = {}
    folders = [""]
    for _ in range(90):
        above = dice.choice(folders)
        path = above + dice.choice(NAMES)
        if path not in tree:
            tree[path] = dice.random() < 0.6 and path.count("/") < 4
            if tree[path]:
                folders.append(path + "/")
    return tree


def patterns_by(dice: random.Random, most: int) -> list[str]:
    return [
        "".join(dice.choice(TOKENS) for _ in range(dice.randint(1, 6)))
        for _ in range(dice.randint(1, most))
    ]


def makes_sense(pattern: str) -> bool:
    try:
        Filter([("exclude", pattern)])
    except AgentError:
        return False
    return True


def git_reads_it_otherwise(pattern: str) -> bool:
    """Whether plain text stands before stars and a slash, or its brackets are refused here.

    Of `foo**/bar` git cuts the text off first and then takes what is left for a leading
    `**/`, against its own documentation. Slashes and backward ranges may stand between
    its brackets, and match nothing.
    """
    if "[" in pattern and not makes_sense(pattern):
        return True
    text = pattern.removeprefix("/")
    wild = min((text.find(c) for c in "*?[\\" if c in text), default=0)
    return wild > 0 and text[wild - 1] != "/" and text[wild:].lstrip("*")[:1] == "/"


class Git:
    """A repository whose ignored paths git tells."""

    def __init__(self, top: Path, tree: dict[str, bool]) -> None:
        self.top, self.tree = top, tree
        for path, folder in tree.items():
            (top / path).mkdir(parents=True) if folder else (top / path).touch()
        self._run("init", "-q", ".")

    def _run(self, *arguments: str, given: bytes = b"") -> bytes:
        # Nothing of this machine's or its user's settings may speak too.
        quiet = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C"}
        git = ["git", "-c", "core.excludesFile=" + os.devnull, *arguments]
        env = {"PATH": os.environ["PATH"], "HOME": str(self.top), **quiet}
        done = subprocess.run(git, cwd=self.top, env=env, input=given, stdout=-1, check=False)
        assert done.returncode in (0, 1)
        return done.stdout

    def ignored(self, patterns: list[str]) -> set[str]:
        """The paths that the patterns exclude."""
        lines = []
        for pattern in patterns:
            bare = pattern.rstrip(" ")
            spaces = "\\ " * (len(pattern) - len(bare))
            lines.append(("\\" if pattern[0] in "!#" else "") + bare + spaces + "\n")
        (self.top / ".git/info/exclude").write_text("".join(lines))
        asked = b"".join(os.fsencode(path) + b"\0" for path in self.tree)
        told = self._run("check-ignore", "--no-index", "-z", "--stdin", given=asked)
        return {os.fsdecode(path) for path in told.split(b"\0") if path}


@pytest.mark.skipif(shutil.which("git") is None, reason="git, the judge, is missing")
@pytest.mark.parametrize("seed", range(8))
def test_a_filter_excludes_the_same_paths_as_git_ignores(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    git = Git(tmp_path, tree_by(dice))
    told = 0
    for _ in range(60):
        patterns = [p for p in patterns_by(dice, 3) if not git_reads_it_otherwise(p)]
        sound = [pattern for pattern in patterns if makes_sense(pattern)]
        wanted = Filter([("exclude", pattern) for pattern in sound])
        left = {path for path, folder in git.tree.items() if not wanted.takes(path, folder)}
        # To git, what is refused here is a pattern that never matches.
        assert left == git.ignored(patterns), patterns
        told += 0 < len(left) < len(git.tree)
    assert told > 10  # Most questions were worth asking.


@pytest.mark.parametrize("seed", range(30))
def test_the_last_matching_rule_decides_in_whatever_order_paths_are_asked(seed: int) -> None:
    """And a folder that is not entered has nothing below it that is taken."""
    dice = random.Random(seed)
    tree = tree_by(dice)
    for _ in range(10):
        given = [
            (dice.choice(("include", "exclude")), pattern)
            for pattern in patterns_by(dice, 6)
            if makes_sense(pattern)
        ]
        wanted = Filter(given)
        alone = [Filter([("exclude", pattern)]) for _, pattern in given]
        for path in dice.sample(list(tree), len(tree)):
            taken = wanted.takes(path, tree[path])
            verbs = ["exclude" if given and given[0][0] == "include" else "include"]
            for (verb, _), one in zip(given, alone, strict=True):
                verbs += [] if one.takes(path, tree[path]) else [verb]
            assert taken is (verbs[-1] == "include"), (given, path)
            above = path.rpartition("/")[0]
            while taken and above:
                assert wanted.enters(above), (given, path, above)
                above = above.rpartition("/")[0]
