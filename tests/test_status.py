"""Only `jobs.queueing.transitions` writes a job's status; a launched job begins with one."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.rig.project import PROJECT

#: The engine knows no jobs, as the test of imports shows.
ROOMS = ("jobs", "portals", "dku", "ketter_site")
WRITER = "jobs/queueing/transitions.py"
#: Where a new job gets its first status, and where its row is made.
LAUNCHING = {"jobs/services.py: job_create", "jobs/services.py: _record"}

STATUS = "status"
#: Methods that write columns, named by keyword or by text.
WRITES = {
    *("update", "create", "get_or_create", "update_or_create", "bulk_create", "bulk_update"),
    *("save", "aupdate", "acreate", "asave", "abulk_update", "__setattr__"),
}
#: What jobs are called; to save one without saying what writes every column.
JOBS = {"job", "order"}
SQL = re.compile(r"\bSET\b[^;]*\bstatus\b\W*=", re.IGNORECASE | re.DOTALL)


def writers(text: str) -> Iterator[str]:
    """The function around each place in a module that writes a status; empty at its top."""
    for around, node in nodes(ast.parse(text), ""):
        if writes_status(node):
            yield around


def nodes(node: ast.AST, around: str) -> Iterator[tuple[str, ast.AST]]:
    """Everything below a node, with the innermost function it stands in."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        around = node.name
    for child in ast.iter_child_nodes(node):
        yield around, child
        yield from nodes(child, around)


def writes_status(node: ast.AST) -> bool:
    """Whether a node writes something that is, or may be, the status of a job."""
    if isinstance(node, ast.Attribute):
        return node.attr == STATUS and isinstance(node.ctx, ast.Store)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and bool(SQL.search(node.value))
    if not isinstance(node, ast.Call):
        return False
    called = ast.unparse(node.func).rpartition(".")[2]
    named = STATUS in {keyword.arg for keyword in node.keywords} | texts_in(node)
    if called in {"setattr", "Job"} | WRITES and named:
        return True
    return called == "save" and saves_all(node)


def texts_in(call: ast.Call) -> set[object]:
    """The texts that are given to a call, also in lists and dictionaries."""
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {node.value for one in given for node in ast.walk(one) if isinstance(node, ast.Constant)}


def saves_all(call: ast.Call) -> bool:
    """Whether that saves every column of a job."""
    assert isinstance(call.func, ast.Attribute)
    whose = ast.unparse(call.func.value).rpartition(".")[2]
    return whose in JOBS and "update_fields" not in {keyword.arg for keyword in call.keywords}


def test_only_one_module_writes_the_status_of_a_job() -> None:
    found = {
        f"{path.relative_to(PROJECT)}: {around}"
        for room in ROOMS
        for path in sorted((PROJECT / room).rglob("*.py"))
        if path != PROJECT / WRITER
        for around in writers(path.read_text("utf-8"))
    }
    assert found == LAUNCHING


WRITING = (
    "job.status = Status.DONE",
    "self.job.status: str = 'done'",
    "job.status, job.phase = 'done', ''",
    "Job.objects.filter(pk=pk).update(status='done')",
    "Job.objects.update(**{'status': 'done'})",
    "Job.objects.bulk_update(jobs, ['phase', 'status'])",
    "Job(status='done')",
    "Job.objects.create(status='done')",
    "job.save(update_fields=['status'])",
    "event.job.save()",
    "setattr(job, 'status', 'done')",
    "cursor.execute('UPDATE jobs SET phase = %s, \"status\" = %s')",
)
NOT_WRITING = (
    "if job.status == Status.DONE: pass",
    "Job.objects.filter(status='done').update(phase='')",
    "job.save(update_fields=['phase'])",
    "portal.save()",
    "cursor.execute('DELETE FROM jobs WHERE status = ANY(%s)')",
    "job_move(job, Status.DONE, code='DONE', message='It is done.')",
)


@pytest.mark.parametrize(
    ("text", "found"),
    [*((text, ["end"]) for text in WRITING), *((text, []) for text in NOT_WRITING)],
)
def test_the_status_check_finds_each_way_to_write_a_status_and_nothing_else(
    text: str, found: list[str]
) -> None:
    assert list(writers(f"def end(job):\n    {text}")) == found
