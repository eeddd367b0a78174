"""Changes of the source, each of which takes the mend of a finding out.

`python -m tests.hostile.without_mends` makes them in a copy, and expects that the named test fails
there. `test_findings` checks that all of them fit the source.
"""

from __future__ import annotations

from typing import NamedTuple


class Mend(NamedTuple):
    """A change of one source file that takes a mend out, and the test that then fails.

    `old` stands once in the file. `test` is a node id below tests/.
    """

    finding: str
    file: str
    old: str
    new: str
    test: str


_LIE = "hostile/test_lying_account.py::test_a_lie_of_one_end_fails_a_transfer_and_does_nothing_else"
_INSTEAD = (
    "hostile/test_lying_account.py::"
    "test_a_program_in_place_of_an_agent_fails_a_transfer_and_does_nothing_else"
)
_PLANTS, _SWAPS = "hostile/test_second_user_plants.py", "hostile/test_second_user_swaps.py"
_JOBS = "hostile/test_second_user_jobs.py"
#: The owner and the mode of a staging folder count no more.
_OWNER = (
    "engine/agent/target/ownership.py",
    "    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS\n",
    "    return True\n",
)

MENDS = (
    Mend(
        "H1",
        "engine/connect/bundle.py",
        '"damaged": DAMAGED, "known_by": known_by}',
        '"damaged": DAMAGED, "known_by": known_by} + f"\\n# {token}"',
        f"{_SWAPS}::test_mallorys_account_finds_no_key_to_command_the_other_end_with[ketter-worker]",
    ),
    Mend(
        "H1",
        "engine/connect/bundle.py",
        '"damaged": DAMAGED, "known_by": known_by}',
        '"damaged": DAMAGED, "known_by": known_by} + f"\\n# {token}"',
        f"{_JOBS}::test_mallory_reads_no_key_password_or_token_while_jobs_run[ketter]",
    ),
    Mend(
        "H2",
        "engine/protocol/fields.py",
        "    return show(_text(text)[:SENTENCE])[:SENTENCE]\n",
        "    return _text(text)\n",
        f"{_LIE}[source-scan-error-move]",
    ),
    Mend(
        "H2",
        "engine/connect/ssh_errors.py",
        'return sentence(" ".join(text.split())[-300:])',
        'return " ".join(text.split())[-300:]',
        f"{_INSTEAD}[text-move-source]",
    ),
    Mend(
        "H3",
        "engine/protocol/messages.py",
        "    if _marks_of(text) > MAX_VALUES and",
        "    if _marks_of(text) > 1 << 40 and",
        "engine/test_message_limits.py::test_no_message_costs_the_worker_more_than_32_mib_beside_itself",
    ),
    Mend(
        "H4",
        "ketter_site/embedded.py",
        '        env=small_environment(),\n        cwd=Path("/"),\n        when_orphaned',
        '        env=None,\n        cwd=Path("/"),\n        when_orphaned',
        "site/test_admission.py::test_the_environment_of_embedded_servers_contains_nothing_of_ketter",
    ),
    Mend(
        "H4",
        "engine/connect/environment.py",
        '        if name in (*COMMON, *LIBRARIES) or name.startswith("LC_")\n',
        "",
        "engine/test_surroundings.py::test_a_local_agent_sees_no_secret",
    ),
    Mend(
        "H5",
        "jobs/queueing/queue_records.py",
        "TASKS = (TASK,)\n",
        'TASKS = type("Any", (tuple,), {"__contains__": lambda *_: True})((TASK,))\n',
        "jobs/test_notifications.py::test_a_worker_runs_no_foreign_queue_entry_and_keeps_running",
    ),
    Mend(
        "H6",  # What has no mark of Ketter's is refused then, still, but in other words.
        *_OWNER,
        f"{_PLANTS}::test_a_staging_folder_that_mallory_planted_is_refused_and_stays[ketter-fifos-777-words0]",
    ),
    Mend(
        "H7",
        "engine/agent/target/staging/made_folders.py",
        '        if not f"{real}/".startswith(f"{folder.path}/") or not folder.path.startswith("/"):\n',  # noqa: E501
        '        if not folder.path.startswith("/"):\n',
        "engine/test_planted.py::test_discard_removes_recorded_folders_only_above_the_target",
    ),
    Mend(
        "H8",
        *_OWNER,
        f"{_PLANTS}::test_a_forged_staging_folder_proves_nothing_and_no_source_is_removed[root-words0]",
    ),
    Mend(
        "H8",
        "engine/plan/reuse.py",
        "        both = not (on_record and session.staging.keeps_owners)\n",
        "        both = False\n",
        "engine/test_on_record.py::test_without_a_record_a_forged_entry_is_sent_again",
    ),
    Mend(
        "H9",
        "engine/named_files.py",
        "            return _opened(self._path, self._folder, self._name)\n",
        "            return os.open(self._path, os.O_WRONLY | os.O_TRUNC)\n",
        f"{_PLANTS}::test_a_manifest_that_mallory_planted_is_refused[root-link]",
    ),
    Mend(
        "H10",
        "engine/protocol/replies.py",
        'cores=fields.get("cores", COUNT)',
        'cores=fields._values["cores"]',
        "engine/test_roots.py::test_an_invalid_inspect_reply_fails_a_transfer_and_a_probe",
    ),
    Mend(
        "H10",  # Without it the test would not end, so this only comes too late.
        "engine/connect/endings.py",
        "    return min(step[1], pulse.standstill(now)) > limit\n",
        "    return min(step[1], pulse.standstill(now)) > limit * 9\n",
        "engine/test_steps_end.py::test_an_agent_that_hangs_and_beats_is_given_up_with_the_name_of_its_step[source-scan]",
    ),
    Mend(
        "H11",
        "ketter_site/management/commands/up.py",
        "        private_folder(LOG_DIR)\n",
        "        LOG_DIR.mkdir(exist_ok=True)\n",
        f"{_JOBS}::test_all_that_ketter_wrote_is_closed_to_other_users[ketter]",
    ),
    Mend(
        "H11",
        "ketter_site/embedded.py",
        '    "log_min_messages=log",\n    "log_min_error_statement=panic",\n',
        "",
        "site/test_embedded.py::test_the_log_of_postgres_has_no_values_and_is_open_to_its_owner_only",
    ),
    Mend(
        "H12",
        "engine/connect/ssh_options.py",
        '    "KnownHostsCommand": "none",  # [8.5] It would accept another key than the pinned one.\n',  # noqa: E501
        "",
        "engine/test_ssh_options.py::test_a_wrong_pin_is_refused_whatever_the_configuration_knows",
    ),
    Mend(
        "H13",
        "engine/connect/ssh_options.py",
        'return [*(_asked()[0] if _client() else ()), "ssh"]',
        'return ["ssh"]',
        f"{_SWAPS}::test_no_ssh_to_a_hanging_account_outlives_a_killed_command_line[ketter]",
    ),
    Mend(
        "H14",
        "engine/agent/tree.py",
        "    if recorded and real_root != recorded:\n",
        "    if recorded and real_root != recorded and False:\n",
        f"{_JOBS}::test_a_root_that_mallory_swaps_by_a_link_is_not_followed[ketter-target]",
    ),
    Mend(
        "H15",
        "engine/agent/reader.py",
        "                if self._since_mark < BETWEEN_MARKS:\n",
        "                if self._since_mark < 0:\n",
        "hostile/test_lying_account.py::test_a_sender_without_end_is_stopped_at_its_bounds[marks]",
    ),
    Mend(
        "H16",
        "engine/proof/manifest_file.py",
        "                except (ValueError, RecursionError, AgentError) as error:\n",
        "                except AgentError as error:\n",
        "engine/test_verify.py::test_a_malformed_manifest_is_refused_in_a_sentence",
    ),
    Mend(
        "H17",
        "engine/parcels/spool.py",
        "self._size + len(data) > self._most:",
        "self._size + len(data) > 1 << 62:",
        "engine/test_spool.py::test_a_spool_takes_half_of_the_free_space_at_most",
    ),
    Mend(
        "H18",
        "ketter_site/env.py",
        "        if owner == os.geteuid():\n            return folder\n",
        "        return folder\n",
        f"{_PLANTS}::test_up_refuses_a_var_folder_that_mallory_planted[root-folder]",
    ),
    Mend(
        "H19",
        "engine/agent/target/publish/free_names.py",
        "        for way in list(self._ways):\n",
        "        for way in [lambda _, a, f, b, g: os.rename(a, b, src_dir_fd=f, dst_dir_fd=g)]:\n",
        "engine/test_free_names.py::test_a_file_that_appears_meanwhile_stays_as_it_is",
    ),
    Mend(
        "H20",
        "portals/crypto.py",
        "    if row != of:\n",
        "    if row != of and False:\n",
        "portals/test_crypto.py::test_a_token_copied_to_another_row_is_refused",
    ),
    Mend(
        "H21",
        "engine/protocol/replies.py",
        'host=fields.get("host", SHOWN_NAME)',
        'host=fields._values["host"]',
        "engine/test_roots.py::test_an_invalid_inspect_reply_fails_a_transfer_and_a_probe",
    ),
    Mend(
        "W18",
        "portals/endpoints.py",
        '    then.lost_credential = moved and frozen.get("credential") != _stamp(portal.credential)\n',  # noqa: E501
        "",
        f"{_JOBS}::test_a_moved_portal_does_not_show_its_new_password_to_the_old_account[ketter]",
    ),
    Mend(
        "W18",
        "portals/endpoints.py",
        '    then.lost_credential = moved and frozen.get("credential") != _stamp(portal.credential)\n',  # noqa: E501
        "",
        "portals/test_endpoints.py::test_the_credential_of_a_new_address_is_not_given_to_the_old_one",
    ),
)  # fmt: skip
