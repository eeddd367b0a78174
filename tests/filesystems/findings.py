"""Each case of the search of issue 14 (where people work), and its tests.

The numbers are those of the search; 26, 31, 33 and 34 were never given. `test_findings` checks that
each test exists.
"""

from __future__ import annotations

_CONTRACT = (
    "filesystems/test_contract::test_a_copy_arrives_and_the_same_again_sends_nothing",
    "filesystems/test_contract::test_a_move_proves_what_arrives_and_empties_the_source",
    "filesystems/test_contract::test_a_transfer_that_was_killed_is_completed_by_the_next_run",
)
_ACCOUNTS = ("accounts/test_accounts::test_a_far_account_has_the_outcome_of_its_row",)
_CLIENTS = ("accounts/test_client::test_a_configuration_has_the_outcome_of_its_row",)

#: What each case was, and its tests below tests/.
FINDINGS: dict[int, tuple[str, tuple[str, ...]]] = {
    1: ("target on Btrfs", _CONTRACT),
    2: ("target on FUSE", _CONTRACT),
    3: (
        "a mount point or subvolume below the target",
        (
            *_CONTRACT,
            "engine/test_mounts_below::test_a_tree_is_delivered_into_nested_file_systems",
            "engine/test_mounts_below::test_what_goes_below_needs_no_room_above",
            "engine/test_publish_each::test_entries_are_copied_into_a_folder_on_another_disk",
        ),
    ),
    4: (
        "one entry that cannot take its place",
        (
            "filesystems/test_rights::test_a_file_that_may_not_be_replaced_is_named_and_the_others_arrive",
            "filesystems/test_rights::test_another_users_file_in_a_sticky_folder_is_named_and_the_others_arrive",
            "filesystems/test_rights::test_what_goes_into_a_closed_folder_is_named_and_the_rest_arrives",
            "filesystems/test_rights::test_the_second_run_delivers_into_read_only_folders_that_the_first_one_made",
            "engine/test_publish_each::test_entries_that_a_folder_refuses_are_named_and_stay_at_the_source",
        ),
    ),
    5: (
        "`link/../x` on the command line",
        (
            "engine/test_command_line_places::test_two_dots_after_a_symlink_lead_to_where_the_kernel_goes",
        ),
    ),
    6: (
        "a target without flock",
        (
            *_CONTRACT,
            "filesystems/test_without_locks::test_an_attempt_that_publishes_stops_before_the_next_rename_once_a_newer_one_begins",
        ),
    ),
    7: ("statfs says 0 everywhere", _CONTRACT),
    8: (
        "a locale that is not UTF-8",
        (
            "engine/test_command_line_places::test_bytes_of_the_command_line_are_bytes_of_the_path",
            "engine/test_command_line_places::test_what_cannot_be_printed_is_escaped",
        ),
    ),
    9: (
        "`LogLevel QUIET`",
        (*_CLIENTS, "engine/test_ssh::test_a_quiet_configuration_hides_no_cause"),
    ),
    10: ("`RemoteCommand`", _CLIENTS),
    11: (
        "several machines, one command, one inbox",
        (
            "engine/test_command_line_places::test_two_machines_never_share_a_transfer_id",
            "engine/test_command_line_places::test_two_folders_never_share_a_transfer_id",
        ),
    ),
    12: (
        "a manifest emptied by runs that prove nothing",
        (
            "engine/test_command_line_manifest::test_a_run_that_proves_nothing_leaves_the_old_manifest",
            "engine/test_command_line_manifest::test_a_failed_run_leaves_the_old_manifest",
            "engine/test_command_line_manifest::test_a_path_that_cannot_be_written_is_refused_before_anything_is_sent",
        ),
    ),
    13: (
        "manifest names do not fit what was delivered",
        (
            "engine/test_command_line_manifest::test_the_manifest_names_the_second_name_of_keep_both",
            "engine/test_command_line_manifest::test_a_renamed_single_file_is_named_as_it_stands_there",
            "engine/test_command_line_manifest::test_an_archive_is_verified_as_the_file_that_it_is",
        ),
    ),
    14: (
        "a move, and the target has another mode",
        (
            "engine/test_modes_there_already::test_a_move_gives_the_mode_of_the_source",
            "engine/test_modes_there_already::test_the_policy_of_a_copy_decides_about_the_mode",
        ),
    ),
    15: ("accounts that cannot run a program", _ACCOUNTS),
    16: (
        "paths beyond 32 KiB",
        ("engine/test_command_line_source::test_a_path_that_is_too_long_is_named",),
    ),
    17: (
        "a sparse file larger than the target",
        ("filesystems/test_targets::test_a_sparse_file_larger_than_the_target_arrives",),
    ),
    18: ("a target keeps whole seconds only", _CONTRACT),
    19: (
        "a terminal that is closed",
        (
            "engine/test_command_line_signals::test_a_closed_terminal_cancels_as_sigterm_does",
            "engine/test_command_line_signals::test_an_ignored_sighup_stays_ignored",
        ),
    ),
    20: (
        "closed or broken stdout and stderr",
        ("engine/test_cli_output::test_a_move_is_done_whatever_becomes_of_its_output",),
    ),
    21: ("no more threads or memory at the far host", _ACCOUNTS),
    22: (
        "setgid folders at the target",
        (
            "filesystems/test_rights::test_folders_that_were_there_keep_mode_and_setgid_and_new_ones_inherit_it",
            "engine/test_folder_modes::test_the_set_group_id_bit_of_the_target_stays_and_is_inherited",
        ),
    ),
    23: (
        "a symlink as the source of a move",
        ("engine/test_command_line_source::test_a_symlink_as_the_source_of_a_move_is_refused",),
    ),
    24: ("a login shell swallows the command", _ACCOUNTS),
    25: ("the jump host's refusal", _CLIENTS),
    27: (
        "a disk that is not mounted, a mistyped target",
        (
            "engine/test_command_line_surroundings::test_a_disk_of_fstab_that_is_not_mounted_is_named_before_anything_is_written",
            "engine/test_command_line_surroundings::test_folders_that_are_made_above_the_target_are_named",
            "engine/test_command_line_surroundings::test_no_mkpath_refuses_a_target_whose_parent_is_missing",
        ),
    ),
    28: (
        "the target's top is not writable",
        (
            "filesystems/test_rights::test_a_target_whose_top_may_not_be_written_to_is_refused_before_anything_is_sent",
        ),
    ),
    29: (
        "passwords, `%20` and `~` in addresses",
        (
            "engine/test_command_line_places::test_an_address_that_cannot_be_meant_is_refused_and_no_secret_is_shown",
            "engine/test_command_line_places::test_an_address_is_taken_as_it_stands",
        ),
    ),
    30: (
        "a move from a write-protected card",
        (
            "engine/test_command_line_surroundings::test_a_move_from_a_write_protected_card_says_so_before_it_sends",
        ),
    ),
    32: (
        "dumb and narrow terminals",
        (
            "engine/test_command_line_signals::test_a_dumb_terminal_gets_no_control_sequences",
            "engine/test_command_line_signals::test_the_progress_line_fits_its_terminal_and_has_no_colours",
        ),
    ),
    35: ("login shells", _ACCOUNTS),
    36: (
        "a source whose inode numbers change",
        (
            *_CONTRACT,
            "engine/test_changing_inodes::test_a_tree_arrives_and_a_move_empties_it_when_inode_numbers_change",
            "engine/test_changing_inodes_sshfs::test_a_tree_on_sshfs_is_transferred_while_the_kernel_forgets_inodes",
        ),
    ),
    37: (
        "a way through folders one may only pass",
        (
            "filesystems/test_rights::test_both_ends_lie_below_folders_that_one_may_only_pass_through",
        ),
    ),
    38: (
        "a file that grows, or is replaced, while it is read",
        ("faults/test_source::test_a_move_leaves_a_file_that_changes_while_it_is_read",),
    ),
    39: ("greetings, no HOME, umask, LANG=C, few files", _ACCOUNTS),
    40: ("ControlMaster, forwardings and the like", _CLIENTS),
    41: (
        "the largest file is limited",
        (
            "engine/test_passes::test_a_file_beyond_the_largest_allowed_is_named_and_the_rest_is_delivered",
        ),
    ),
    42: ("overlayfs, squashfs, XFS and ext4", _CONTRACT),
    43: (
        "1500 levels, 5000 excludes",
        (
            "engine/test_hard_places::test_a_very_deep_tree_is_moved_merged_and_cleared_away",
            "engine/test_passes::test_five_thousand_excludes_leave_out_what_they_name",
        ),
    ),
    44: (
        "Ctrl-Z for a minute, Ctrl-C twice",
        (
            "engine/test_links::test_a_suspended_worker_does_not_take_its_own_pause_for_silent_agents",
            "engine/test_cli_output::test_a_second_signal_does_not_cut_off_the_clean_up",
        ),
    ),
    45: ("no Python, pyenv's shim", _ACCOUNTS),
}
