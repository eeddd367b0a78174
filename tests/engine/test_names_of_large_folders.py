"""A folder of very many names, where the target folds them: exact, and flat in memory."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Iterator

import pytest

from engine import errors
from engine.agent.target.name_rules import NameRules
from engine.agent.wire import FILE, FOLDER, Entry
from engine.parcels.spool import Spool
from engine.plan import names
from engine.plan.name_check import NameCheck
from engine.plan.names import NameFilter

pytestmark = pytest.mark.fast

APPLE = NameRules(255, folds_case=True, normalises=True, utf8_only=True)
MIB = 1 << 20


@pytest.fixture
def spool() -> Iterator[Spool]:
    spool = Spool()
    yield spool
    spool.close()


class Sieve:
    """A name filter, what it has passed on, and what it has refused."""

    def __init__(self, spool: Spool, rules: NameRules = APPLE) -> None:
        self.checked = 0
        self.fine: list[str] = []
        self.refused: dict[str, str] = {}
        self._filter = NameFilter(rules, self._failed, spool, self._check)

    def sift(self, *messages: Iterable[Entry]) -> None:
        """Take in a scan's messages, to its end."""
        for message in messages:
            for part in self._filter.take(message):
                self.fine += [entry.path for entry in part]
        for part in self._filter.finish():
            self.fine += [entry.path for entry in part]

    def _failed(self, path: str, code: str, sentence: str) -> None:
        assert path not in self.refused
        self.refused[path] = code

    def _check(self) -> None:
        self.checked += 1


def file(path: str, kind: str = FILE) -> Entry:
    return Entry(path, kind, 1, 2, 0o644, 3)


@pytest.mark.parametrize("in_memory", [1, 7, 1000])
def test_names_in_the_spool_are_judged_as_those_in_memory(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(names, "IN_MEMORY", in_memory)
    chance = random.Random(5)
    letters = ["a", "A", "e", "E", "\u0301", "é", "É", "ß", "s", "S", "\udcff"]
    reserved = {".KETTER-x.part", "n" * 256}
    for _ in range(30):
        texts = {"".join(chance.choices(letters, k=3)) for _ in range(40)} | reserved
        folder = sorted(texts, key=lambda text: text.encode("utf-8", "surrogateescape"))
        encoded = [text.encode("utf-8", "surrogateescape") for text in folder]
        found = NameCheck(APPLE).check(encoded)
        sieve = Sieve(spool)

        sieve.sift([file(text) for text in folder[:25]], [file(text) for text in folder[25:]])

        assert sieve.refused == {folder[place]: code for place, (code, _) in found.items()}
        assert sieve.fine == [text for at, text in enumerate(folder) if at not in found]


@pytest.mark.parametrize("in_memory", [1, 3, 1000])
def test_what_lies_below_a_refused_folder_is_refused_and_nothing_else(
    spool: Spool, monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    monkeypatch.setattr(names, "IN_MEMORY", in_memory)
    sieve = Sieve(spool)
    top = [file("b", FOLDER), file("B", FOLDER), file("c", FOLDER), file("x"), file("y")]
    below = [file(f"{folder}/{name}") for folder in ("b", "B", "c") for name in "mnop"]

    sieve.sift(top, below)

    assert sieve.fine == ["c", "x", "y", "c/m", "c/n", "c/o", "c/p"]
    assert set(sieve.refused.values()) == {"NAME_COLLISION"}
    assert len(sieve.refused) == 10


def test_names_of_one_number_that_do_not_become_one_are_both_fine(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number only says which names to compare."""
    monkeypatch.setattr(names, "IN_MEMORY", 2)
    monkeypatch.setattr(NameCheck, "number", lambda check, name: 4)
    sieve = Sieve(spool)

    sieve.sift([file(name) for name in ("A", "a", "b", "c", "d")])

    assert sieve.fine == ["b", "c", "d"]
    assert sieve.refused == {"A": "NAME_COLLISION", "a": "NAME_COLLISION"}


def listing(count: int, shape: str = "f{:07}.dpx") -> Iterator[list[Entry]]:
    """A folder of so many names, as a scan's messages have them."""
    for at in range(0, count, 2500):
        yield [file(shape.format(at + n)) for n in range(2500)]


def test_a_folder_of_very_many_names_takes_little_memory(spool: Spool) -> None:
    count = 100_000
    sieve = NameFilter(APPLE, lambda *_: None, spool, lambda: None)
    passed = 0
    tracemalloc.start()
    try:
        for message in listing(count):
            passed += sum(map(len, sieve.take(message)))
        passed += sum(map(len, sieve.finish()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert passed == count
    # The spool has up to 8 MiB in memory; the entries would take 40.
    assert peak < 20 * MIB


def test_a_folder_with_very_many_names_that_become_one_is_refused_whole(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MOST_ALIKE", 4000)
    sieve = Sieve(spool)
    pairs = [file(f"{case}{n}") for case in "aA" for n in range(10_000)]

    with pytest.raises(errors.BadRequest, match="more than 4,000 names that would be one"):
        sieve.sift(pairs)

    assert sieve.refused == {}


def test_very_many_folders_that_cannot_be_made_are_refused(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MOST_REFUSED", 100)
    sieve = Sieve(spool)

    with pytest.raises(errors.BadRequest, match="more than 100 folders"):
        sieve.sift([file(f"{n}{'x' * 255}", FOLDER) for n in range(200)])
