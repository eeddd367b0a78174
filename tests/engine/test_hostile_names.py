"""Names and kinds that a lying source makes up: what they may not become elsewhere."""

from __future__ import annotations

import gc
import os
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

import engine
from engine import HardLinks, Mode, Symlinks
from engine.agent.target.name_rules import NameRules
from engine.plan.name_check import NameCheck
from engine.proof.reporter import Reporter
from engine.types import SHOWN_PATH, display_path
from tests.rig.lying import SEND, Lie, found
from tests.rig.transfers import Run


@pytest.mark.parametrize("name", [".Ketter-cli-1.Part", ".\N{KELVIN SIGN}ETTER-1.part"])
def test_a_name_that_a_folding_target_takes_for_a_staging_folder_is_refused(name: str) -> None:
    check = NameCheck(NameRules(255, folds_case=True, normalises=False, utf8_only=False))

    (problem,) = check.check([name.encode(), b"other"]).values()

    assert problem[0] == "NAME_RESERVED"


@pytest.mark.parametrize("path", ["\udcff" * 32_000, "\x1b" * 32_000, "long" * 8_000])
def test_a_path_for_people_has_a_bound(path: str) -> None:
    shown = display_path(f"begin/{path}/end")

    assert len(shown) <= SHOWN_PATH
    assert shown.startswith("begin/")
    assert shown.endswith("/end")
    assert shown.isprintable()


@pytest.mark.parametrize(
    ("kind", "link", "options"),
    [
        ("l", "/etc", {"symlinks": Symlinks.SKIP}),
        ("l", "/etc", {"symlinks": Symlinks.FOLLOW}),
        ("h", "mine", {"hard_links": HardLinks.COPY}),
    ],
)
def test_a_source_brings_no_link_that_the_options_leave_out(
    tree: Path, run: Run, lie: Lie, kind: str, link: str, options: dict[str, Any]
) -> None:
    (tree / "b" / "mine").write_bytes(b"theirs")
    lie(
        source_commands=found(("planted", kind, len(link) if kind == "l" else 0, link)),
        source_sender=SEND,
    )

    with pytest.raises(engine.AgentFailed, match="planted"):
        run(**options)

    assert not os.path.lexists(tree / "b" / "planted")


def test_of_folders_that_stay_at_the_source_few_reasons_are_kept(
    tree: Path, run: Run, lie: Lie, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        (tree / "a" / f"empty{number}").mkdir()
    lie(
        source_commands="""
def do_remove_folders(self, blob):
    return {"removed": 0, "full": 0, "problems": [["x" * 9000, "IO_ERROR", "y"]] * 300}
Source.do_remove_folders = do_remove_folders
"""
    )
    kept: list[tuple[int, int]] = []
    monkeypatch.setattr(
        Reporter, "warn", lambda self, code, what, some, number=0: kept.append((len(some), number))
    )

    run(mode=Mode.MOVE)

    assert (100, 300) in kept


def test_staged_entries_that_are_not_at_the_source_do_not_stay_in_memory(
    tree: Path, run: Run, lie: Lie
) -> None:
    lie(
        main="""
_send = Context.send
def send(self, body, blob=b""):
    if body.get("op") == "inspect":
        body["done"]["left"] = True
    if body.get("op") == "stage":
        for part in range(20):
            names = ["%06d" % (part * 120 + at) + "x" * 32000 for at in range(120)]
            some = wire.pack_entries([wire.Entry(name, "f", 5, 1, 0o644, 1) for name in names])
            _send(self, {"held": 120, "list": len(some)}, some + b"x" * 32 * 120)
    _send(self, body, blob)
Context.send = send
from engine.agent import wire
""",
        target_commands="Target.do_discard = lambda self, blob: {}",
    )
    gc.collect()  # What earlier tests have left counts when it goes.
    tracemalloc.start()
    try:
        run(resume=True)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert most < 48 << 20
