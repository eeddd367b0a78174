"""The replies about publishing; see `replies` for the others."""

from __future__ import annotations

from engine.protocol.fields import (
    COUNT,
    FLAG,
    NAME,
    NAME_PAIR,
    PROBLEM,
    SHOWN,
    EntryProblem,
    Fields,
    each,
)
from engine.protocol.record import Record


class PublishArchiveReply(Record):
    """`there`: the name of an identical archive that existed already; empty if there was none.

    `name` is the archive's name now, `size` its bytes.
    """

    there: str
    name: str
    size: int

    @classmethod
    def read(cls, fields: Fields) -> PublishArchiveReply:
        """Read all fields."""
        return cls(fields.get("there", SHOWN), fields.get("name", NAME), fields.get("size", COUNT))


class PublishReply(Record):
    """Some folders that did not take their mode or time, and the number of all.

    `refused`: true if some entries could not take their place. `renamed`: if some got a second
    name, which `--on-conflict keep-both` gives.
    """

    problems: tuple[EntryProblem, ...]
    problem_count: int
    refused: bool
    renamed: bool

    @classmethod
    def read(cls, fields: Fields) -> PublishReply:
        """Read all fields."""
        return cls(
            fields.get("problems", each(PROBLEM)),
            fields.get("problem_count", COUNT),
            fields.get("refused", FLAG),
            fields.get("renamed", FLAG),
        )


class UnpublishedReply(Record):
    """Which of the entries that were asked about could not take their place, and why.

    `names`: those that got a second name, each with that.
    """

    kept: tuple[EntryProblem, ...]
    names: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, fields: Fields) -> UnpublishedReply:
        """Read both lists."""
        return cls(fields.get("kept", each(PROBLEM)), fields.get("names", each(NAME_PAIR)))


class AdjustReply(Record):
    """Some files that the target had and that did not take their mode, and the number of all."""

    problems: tuple[EntryProblem, ...]
    problem_count: int

    @classmethod
    def read(cls, fields: Fields) -> AdjustReply:
        """Read both fields."""
        return cls(fields.get("problems", each(PROBLEM)), fields.get("problem_count", COUNT))
