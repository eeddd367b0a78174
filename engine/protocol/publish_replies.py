"""The replies about publishing; see `replies` for the others."""

from __future__ import annotations

from engine.protocol.fields import COUNT, FLAG, PROBLEM, SHOWN, EntryProblem, Fields, each
from engine.protocol.record import Record


class PublishArchiveReply(Record):
    """`there`: the name of an identical archive that existed already; empty if there was none."""

    there: str

    @classmethod
    def read(cls, fields: Fields) -> PublishArchiveReply:
        """Read the name."""
        return cls(fields.get("there", SHOWN))


class PublishReply(Record):
    """Some folders that did not take their mode or time, and the number of all.

    `refused`: true if some entries could not take their place.
    """

    problems: tuple[EntryProblem, ...]
    problem_count: int
    refused: bool

    @classmethod
    def read(cls, fields: Fields) -> PublishReply:
        """Read all fields."""
        return cls(
            fields.get("problems", each(PROBLEM)),
            fields.get("problem_count", COUNT),
            fields.get("refused", FLAG),
        )


class UnpublishedReply(Record):
    """Which of the entries that were asked about could not take their place, and why."""

    kept: tuple[EntryProblem, ...]

    @classmethod
    def read(cls, fields: Fields) -> UnpublishedReply:
        """Read the list."""
        return cls(fields.get("kept", each(PROBLEM)))


class AdjustReply(Record):
    """Some files that the target had and that did not take their mode, and the number of all."""

    problems: tuple[EntryProblem, ...]
    problem_count: int

    @classmethod
    def read(cls, fields: Fields) -> AdjustReply:
        """Read both fields."""
        return cls(fields.get("problems", each(PROBLEM)), fields.get("problem_count", COUNT))
