"""Which tests of the contract run in the whole: one full pass for each kind in each role.

The cross product of kinds with all kill points and policies is `nightly`.
"""

from __future__ import annotations

import pytest

from tests.filesystems.kinds import KINDS, SOURCE

#: Tests that run in the whole, by role; of those with a point or a policy, which.
TARGETS = {
    "test_a_copy_arrives_and_the_same_again_sends_nothing": (),
    "test_a_move_proves_what_arrives_and_empties_the_source": (),
    "test_one_archive_is_delivered_and_known_again": (),
    "test_a_cancelled_copy_leaves_nothing": (),
    "test_each_policy_treats_what_is_different": ("keep-both",),
    "test_a_transfer_that_was_killed_is_completed_by_the_next_run": ("first-parcel", "first-name"),
    "test_a_hard_tree_arrives_or_each_entry_is_named": (),
}
SOURCES = {
    "test_a_copy_arrives_and_the_same_again_sends_nothing": (),
    "test_a_move_proves_what_arrives_and_empties_the_source": (),
    "test_a_transfer_that_was_killed_is_completed_by_the_next_run": ("remove_source",),
    "test_a_hard_tree_arrives_or_each_entry_is_named": (),
}


#: What a file system that is read-only cannot hold: trees beside the contract's own.
OWN_TREES = (
    "test_each_policy_treats_what_is_different",
    "test_a_hard_tree_arrives_or_each_entry_is_named",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out pairs of test and kind that mean nothing."""
    senseless = [item for item in items if _is_senseless(item)]
    if senseless:
        config.hook.pytest_deselected(items=senseless)
        items[:] = [item for item in items if not _is_senseless(item)]


def _is_senseless(item: pytest.Item) -> bool:
    name = getattr(item, "originalname", item.name)
    params = getattr(getattr(item, "callspec", None), "params", {})
    if "stage" in params:
        return KINDS[params["stage"][0]].read_only and name in OWN_TREES
    kind = KINDS.get(str(params.get("place")))
    if kind is None:
        return False
    if "forged" in name:  # Else only this user, whose file it is, can write into the folder there.
        return kind.keeps_owners and params["mode"] == "copy"
    return "symlink" in name and not kind.symlinks


def pytest_itemcollected(item: pytest.Item) -> None:
    """Have the rest of the contract wait for the night."""
    call = getattr(item, "callspec", None)
    if call is None or "stage" not in call.params:
        return
    kind, role = call.params["stage"]
    chosen = SOURCES if role == SOURCE else TARGETS
    name = getattr(item, "originalname", item.name)
    if role == SOURCE and KINDS[kind].words and "hard_tree" in name:
        item.add_marker(pytest.mark.nightly)  # A shim shows the disk's own names.
    which = str(call.params.get("point", call.params.get("policy", "")))
    if name not in chosen or (chosen[name] and which not in chosen[name]):
        item.add_marker(pytest.mark.nightly)
