"""The replies about a target before anything is written there; see `replies` for the others."""

from __future__ import annotations

from typing import Any

from engine.agent.typed import NamedTuple
from engine.agent.wire import (
    ABSENT,
    ALIKE,
    DIFFERENT,
    HIDDEN,
    OLDER,
    OTHER_KIND,
    SAME,
    UNCHANGED,
    AgentError,
)
from engine.protocol.fields import (
    COUNT,
    COUNT_OR_UNKNOWN,
    ENTRY_FAILURE,
    FLAG,
    NAME,
    NOTE,
    SHOWN,
    Failure,
    Fields,
    Form,
    by_number,
    each,
    letters,
    name,
)
from engine.protocol.record import Record

#: The letters that COMPARE answers with.
_STATES = frozenset(ABSENT + SAME + DIFFERENT + OLDER + OTHER_KIND + UNCHANGED + ALIKE + HIDDEN)
#: Things that a file system does not keep, at most.
_MOST_NOTES = 8
#: Folders at which other file systems begin, of which one reply names the first.
_MOST_MOUNTS = 20
#: The most folders that were made for a target folder, of which a reply names the first.
_MOST_MADE = 20


class CompareReply(NamedTuple):
    """A letter for each entry, see `agent.target.compare`.

    `others`: by position, another name at the target that has the same content. `failures`: by
    position, why an entry cannot be looked at. `mounts`: the first folders at which another file
    system begins. `room`: bytes free on those that no earlier reply had.
    """

    states: str
    others: dict[int, str]
    failures: dict[int, Failure]
    mounts: tuple[str, ...]
    room: int

    @classmethod
    def read(cls, fields: Fields) -> CompareReply:
        """Read all fields; raises AgentError if an entry is hidden for no reason."""
        states = fields.get("states", letters(_STATES, 1 << 20))
        failures = fields.get("errors", by_number(ENTRY_FAILURE, len(states)))
        if {index for index, state in enumerate(states) if state == HIDDEN} != failures.keys():
            raise AgentError("AGENT_FAILED", "protocol error: an entry is hidden without a reason")
        return cls(
            states,
            fields.get("others", by_number(NAME, len(states))),
            failures,
            fields.get("mounts", each(SHOWN, _MOST_MOUNTS)),
            fields.get("room", COUNT),
        )


class StageReply(Record):
    """The staging folder in the target folder. `fresh`: the target folder was made for it.

    `left`: an earlier attempt left something. `transfer_id` is part of the staging folder's
    name. `keeps_owners`: the file system keeps the user that made a folder. `notes`: what else
    it does not keep, a code and a sentence each. `made`: the folders that were made on the way to
    the target folder, outermost first, twenty at most.
    """

    fresh: bool
    left: bool
    transfer_id: str
    keeps_owners: bool
    notes: tuple[Failure, ...]
    made: tuple[str, ...]

    @classmethod
    def read(cls, fields: Fields) -> StageReply:
        """Read all fields."""
        return cls(
            fields.get("fresh", FLAG),
            fields.get("left", FLAG),
            fields.get("transfer_id", name(255)),
            fields.get("keeps_owners", FLAG),
            fields.get("notes", each(NOTE, _MOST_NOTES)),
            fields.get("made", each(SHOWN, _MOST_MADE)),
        )


class NamesReply(NamedTuple):
    """The target's rules for names, see `agent.target.name_rules.NameRules`."""

    name_max: int
    folds_case: bool
    normalises: bool
    utf8_only: bool

    @classmethod
    def read(cls, fields: Fields) -> NamesReply:
        """Read the rules, which come as a list."""
        return fields.get("rules", Form("a number and three flags", cls._of_list))

    @classmethod
    def _of_list(cls, value: Any) -> NamesReply:
        rules = cls(*value) if isinstance(value, list) and len(value) == 4 else None
        if rules is None or [type(rule) for rule in rules] != [int, bool, bool, bool]:
            raise ValueError
        return rules._replace(name_max=COUNT_OR_UNKNOWN.read(rules.name_max))
