"""Each finding of the attack of issue 13 (H1 to H21, W18), and its tests.

`mends` has the changes that take the mends out; `test_findings` checks that all of it fits.
"""

from __future__ import annotations

#: What each finding was, and the tests of its mend, below tests/.
FINDINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "H1": (
        "the key of the wire in a command line",
        (
            "hostile/test_second_user_swaps::test_mallorys_account_finds_no_key_to_command_the_other_end_with",
            "hostile/test_second_user_jobs::test_mallory_reads_no_key_password_or_token_while_jobs_run",
            "engine/test_keys::test_no_command_line_or_environment_shows_a_key_while_streams_run",
        ),
    ),
    "H2": (
        "a host writes to the terminal",
        (
            "hostile/test_second_user_jobs::test_odd_words_of_an_account_are_short_and_printable_in_jobs_and_connection_tests",
            "hostile/test_lying_account::test_a_lie_of_one_end_fails_a_transfer_and_does_nothing_else",
            "hostile/test_lying_account::test_a_program_in_place_of_an_agent_fails_a_transfer_and_does_nothing_else",
            "engine/test_replies::test_an_error_text_from_an_agent_is_cut_to_one_short_printable_line",
        ),
    ),
    "H3": (
        "one answer fills the memory",
        (
            "hostile/test_lying_account::test_a_lie_of_one_end_fails_a_transfer_and_does_nothing_else",
            "engine/test_replies::test_a_message_with_too_much_json_or_too_many_items_is_refused",
            "engine/test_message_limits::test_no_message_costs_the_worker_more_than_32_mib_beside_itself",
        ),
    ),
    "H4": (
        "servers and ssh have the keys in their environment",
        (
            "hostile/test_second_user_jobs::test_logs_keys_and_sockets_are_closed_to_every_other_user",
            "hostile/test_second_user_jobs::test_mallory_reads_no_key_password_or_token_while_jobs_run",
            "site/test_admission::test_the_environment_of_embedded_servers_contains_nothing_of_ketter",
            "engine/test_surroundings::test_a_local_agent_sees_no_secret",
        ),
    ),
    "H5": (
        "a worker runs any function named in Redis",
        ("jobs/test_notifications::test_a_worker_runs_no_foreign_queue_entry_and_keeps_running",),
    ),
    "H6": (
        "a pipe in a planted staging folder hangs the engine",
        (
            "hostile/test_second_user_plants::test_a_staging_folder_that_mallory_planted_is_refused_and_stays",
            "hostile/test_second_user_jobs::test_a_paused_job_meets_what_mallory_put_in_its_folders_place_and_asks",
            "engine/test_planted::test_pipes_links_and_folders_in_place_of_staging_files_are_not_opened",
        ),
    ),
    "H7": (
        "a planted note has other people's folders removed",
        (
            "hostile/test_second_user_plants::test_a_staging_folder_that_mallory_planted_is_refused_and_stays",
            "engine/test_planted::test_discard_removes_recorded_folders_only_above_the_target",
        ),
    ),
    "H8": (
        "a planted journal proves forged files",
        (
            "hostile/test_second_user_plants::test_a_forged_staging_folder_proves_nothing_and_no_source_is_removed",
            "hostile/test_second_user_plants::test_a_staging_folder_that_was_swapped_between_two_runs_is_not_resumed",
            "faults/test_planted_jobs::test_a_job_sends_again_what_another_program_of_the_targets_account_forged",
            "engine/test_on_record::test_without_a_record_a_forged_entry_is_sent_again",
        ),
    ),
    "H9": (
        "--manifest follows a planted link",
        (
            "hostile/test_second_user_plants::test_a_manifest_that_mallory_planted_is_refused",
            "hostile/test_second_user_plants::test_a_manifest_that_mallory_swaps_meanwhile_is_not_opened_again",
            "engine/test_named_files::test_a_symlink_is_refused_and_its_target_is_untouched",
        ),
    ),
    "H10": (
        "replies of no type are tracebacks, or a hang",
        (
            "hostile/test_lying_account::test_a_lie_of_one_end_fails_a_transfer_and_does_nothing_else",
            "engine/test_replies::test_a_missing_or_invalid_reply_field_counts_as_agent_failed",
            "engine/test_reply_properties::test_any_value_of_any_reply_field_is_taken_or_refused_in_a_line",
            "engine/test_steps_end::test_an_agent_that_hangs_and_beats_is_given_up_with_the_name_of_its_step",
        ),
    ),
    "H11": (
        "logs are open to every user, and hold SQL",
        (
            "hostile/test_second_user_jobs::test_all_that_ketter_wrote_is_closed_to_other_users",
            "hostile/test_second_user_jobs::test_logs_keys_and_sockets_are_closed_to_every_other_user",
            "site/test_embedded::test_the_log_of_postgres_has_no_values_and_is_open_to_its_owner_only",
        ),
    ),
    "H12": (
        "a configuration of ssh undoes the pin",
        (
            "engine/test_ssh_options::test_no_configuration_undoes_an_option_of_ketter",
            "engine/test_ssh_options::test_a_wrong_pin_is_refused_whatever_the_configuration_knows",
        ),
    ),
    "H13": (
        "ssh outlives a killed worker",
        (
            "hostile/test_second_user_swaps::test_no_ssh_to_a_hanging_account_outlives_a_killed_command_line",
            "engine/test_ssh_options::test_no_ssh_outlives_a_killed_worker",
        ),
    ),
    "H14": (
        "each run follows the root wherever it leads by then",
        (
            "hostile/test_second_user_jobs::test_a_root_that_mallory_swaps_by_a_link_is_not_followed",
            "hostile/test_second_user_swaps::test_a_target_folder_that_mallory_swaps_leads_nowhere_else",
            "engine/test_roots::test_a_root_that_leads_elsewhere_than_recorded_is_refused",
            "jobs/test_machines::test_a_move_is_not_run_by_a_worker_of_another_machine_with_the_same_folder",
        ),
    ),
    "H15": (
        "marks without payload fill the target's disk",
        (
            "hostile/test_lying_account::test_a_sender_without_end_is_stopped_at_its_bounds",
            "engine/test_hostile_bounds::test_a_senseless_frame_is_refused_without_crashing_the_agent",
        ),
    ),
    "H16": (
        "odd manifests are tracebacks",
        ("engine/test_verify::test_a_malformed_manifest_is_refused_in_a_sentence",),
    ),
    "H17": (
        "a scan without end fills the temporary folder",
        (
            "engine/test_spool::test_a_spool_takes_half_of_the_free_space_at_most",
            "engine/test_message_limits::test_a_target_that_lists_arrived_entries_without_end_is_refused",
            "hostile/test_lying_account::test_a_lie_of_one_end_fails_a_transfer_and_does_nothing_else",
        ),
    ),
    "H18": (
        "up trusts another user's var folder",
        (
            "hostile/test_second_user_plants::test_up_refuses_a_var_folder_that_mallory_planted",
            "site/test_env::test_a_folder_or_file_of_another_user_is_refused_and_stays_as_it_is",
        ),
    ),
    "H19": (
        "files that appear meanwhile are replaced",
        (
            "hostile/test_second_user_swaps::test_no_file_that_mallory_makes_while_it_is_published_is_replaced",
            "engine/test_free_names::test_a_file_that_appears_meanwhile_stays_as_it_is",
        ),
    ),
    "H20": (
        "a stored secret is not bound to its row",
        ("portals/test_crypto::test_a_token_copied_to_another_row_is_refused",),
    ),
    "H21": (
        "the connection test stores what a host says of itself",
        (
            "hostile/test_second_user_jobs::test_odd_words_of_an_account_are_short_and_printable_in_jobs_and_connection_tests",
            "engine/test_roots::test_an_invalid_inspect_reply_fails_a_transfer_and_a_probe",
        ),
    ),
    "W18": (
        "a moved portal's new credential goes to the old host",
        (
            "hostile/test_second_user_jobs::test_a_moved_portal_does_not_show_its_new_password_to_the_old_account",
            "portals/test_endpoints::test_the_credential_of_a_new_address_is_not_given_to_the_old_one",
        ),
    ),
}
