"""Every text that users read in the admin, the API and events is marked for translation.

Two rules, by syntax alone, without gettext:

- A text is marked where users read it: labels, help texts, messages, errors, events. A name is
  followed to its assignments in the same module.
- Any other text that reads like a sentence is marked, too, unless EXCEPTIONS says why not. So the
  test notices a text on a way to users that the first rule does not know.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings
from django.utils.translation import to_locale

from tests.rig.project import PROJECT

pytestmark = pytest.mark.fast

ROOMS = ("portals", "jobs", "ketter_site", "dku")
LOCALE = PROJECT / "locale"

MARKERS = {"_", "gettext", "gettext_lazy", "gettext_noop", "ngettext", "ngettext_lazy", "pgettext"}
#: Keywords and attributes whose value users read.
LABELS = {
    *("verbose_name", "verbose_name_plural", "help_text", "label", "short_description"),
    *("description", "message", "error_message", "error_messages", "default_error_messages"),
}
#: Structures in which users read the first entry of each row, or the keys.
HEADINGS = {"fieldsets", "_SIDEBAR"}
#: Functions and classes -> the number of the argument that users read.
ARGUMENTS = {
    **dict.fromkeys(("add_error", "Note", "Problem", "_envelope", "_plain"), 1),
    **{f"messages.{level}": 1 for level in ("debug", "info", "success", "warning", "error")},
    **dict.fromkeys(("Finding", "log_change"), 2),
    **dict.fromkeys(("Http404", "PermissionDenied", "ValidationError"), 0),
}
#: Modules of errors: users read the argument of their classes and of `super().__init__`.
TREES = ("portals/errors.py", "jobs/errors.py")
#: Functions that hand on the text they are given, by its number.
HAND_ON = {"str": 0, "capfirst": 0, "fromkeys": 1}

#: What is called with a text -> who reads that instead of users.
UNREAD = {
    **dict.fromkeys(("ImproperlyConfigured", "StartFailed", "EmbeddedError"), "a terminal"),
    **dict.fromkeys(("ValueError", "LookupError", "TypeError", "RuntimeError"), "a developer"),
    **{f"{owner}.*": "an administrator, in the log" for owner in ("logger", "log")},
}
#: (Module, text) -> why a text is not marked; both may be patterns.
EXCEPTIONS = {
    ("dku/*", "*"): "reports are English, to be compared between installations: dku/findings.py",
    ("*/management/commands/*", "*"): "commands write to a terminal, in English as Django's do",
    ("ketter_site/alembic_export/*", "*"): "the export writes to a developer's terminal",
    ("ketter_site/supervisor.py", "*"): "`manage.py up` writes to a terminal",
    ("ketter_site/only_one.py", "*"): "`manage.py up` writes to a terminal",
    ("ketter_site/admission.py", "# Written by Ketter*"): "a comment in a file of Postgres",
    ("jobs/queueing/queue_keys.py", "Another program*"): "an administrator reads it in the log",
    ("ketter_site/logs.py", "(Failing row contains*"): "a pattern of Postgres' own words",
    ("ketter_site/settings.py", "%(asctime)s*"): "the form of a log record",
    ("portals/models.py", "Can test portal"): "a permission's name is a row, made by migrate",
}


class Text(NamedTuple):
    """A text that is not marked."""

    module: str
    line: int
    text: str

    def reason(self) -> tuple[str, str] | None:
        """The row of EXCEPTIONS for it, if there is one."""
        rows = (row for row in EXCEPTIONS if fnmatch(self.module, row[0]))
        return next((row for row in rows if fnmatch(self.text, row[1])), None)


def modules_of(room: str) -> list[str]:
    """The modules of a room, by their path from the root."""
    found = (PROJECT / room).rglob("*.py")
    return sorted(p.relative_to(PROJECT).as_posix() for p in found if "migrations" not in p.parts)


def texts_in(module: str) -> list[Text]:
    """The texts of a module that neither rule finds marked."""
    return unmarked_texts(module, (PROJECT / module).read_text("utf-8"))


def unmarked_texts(module: str, source: str) -> list[Text]:
    """The texts in a source that are not marked, in order."""
    scan = Scan(module, ast.parse(source))
    found = {*scan.read_by_users(), *scan.sentences(scan.tree)}
    return sorted(Text(module, node.lineno, " ".join(said(node).split())) for node in found)


def error_classes() -> set[str]:
    """The classes of the trees of errors."""
    trees = [ast.parse((PROJECT / module).read_text("utf-8")) for module in TREES]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


ERRORS = error_classes()


def said(node: ast.AST) -> str:
    """The text of a constant, or of an f-string with {} for its values; else empty."""
    if isinstance(node, ast.JoinedStr):
        return "".join(said(part) or "{}" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def is_prose(text: str) -> bool:
    """True if a text reads like a sentence or a part of one; not for names, paths and SQL."""
    words = re.findall(r"(?<![\w./-])[^\W\d_]{2,}(?![\w/=-])", text)
    begins = re.match(r"[\s“(\"']*([A-Z][a-z]*\b|\{\}|%)", text)
    lower = [word for word in words if word.islower()]
    return len(lower) > 1 and bool(begins or text.rstrip().endswith("."))


def called(node: ast.AST) -> tuple[str, ...]:
    """The names of what a node calls, from the longest to the last alone; none if no call."""
    if not isinstance(node, ast.Call):
        return ()
    names = ast.unparse(node.func).split(".")
    return (".".join(names[-2:]), f"{names[0]}.*", names[-1])


class Scan:
    """The two rules, for one module."""

    def __init__(self, module: str, tree: ast.Module) -> None:
        self.module = module
        self.tree = tree
        self.values: dict[str, list[ast.expr]] = {}
        for node in ast.walk(tree):
            for name, value in assigned(node):
                self.values.setdefault(name, []).append(value)

    def read_by_users(self) -> Iterator[ast.expr]:
        """The first rule: texts where users read them."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call):
                given = self._of_call(node)
            elif isinstance(node, ast.ClassDef):
                given = of_class(node)
            else:
                given = headings(node)
            for expression in given:
                yield from self.literals(expression)

    def _of_call(self, node: ast.Call) -> Iterator[ast.expr]:
        """The arguments of a call that users read."""
        names = called(node)
        for keyword in node.keywords:
            # `label` of `display` maps values to colours.
            if keyword.arg in LABELS and (keyword.arg, names[-1]) != ("label", "display"):
                yield keyword.value
        number = next((ARGUMENTS[name] for name in names if name in ARGUMENTS), None)
        is_error = names[-1] in ERRORS or (self.module in TREES and names[-1] == "__init__")
        is_column = names[0].startswith("models.") and names[-1].endswith("Field")
        if number is None and (is_error or is_column):
            number = 0
        if number is not None:
            yield from node.args[number : number + 1]

    def literals(self, node: ast.AST, seen: tuple[str, ...] = ()) -> Iterator[ast.expr]:
        """The texts that an expression is made of, but for the marked ones."""
        names = called(node)
        if MARKERS.intersection(names):
            return
        parts: list[ast.expr] = []
        match node:
            case ast.Constant() | ast.JoinedStr():
                if re.search(r"[^\W\d_]", said(node).replace("{}", "")):
                    yield node
            case ast.BinOp(left=left, op=op, right=right):
                parts = [left, right] if isinstance(op, ast.Add) else [left]
            case ast.IfExp(body=body, orelse=orelse):
                parts = [body, orelse]
            case ast.BoolOp(values=values) | ast.Dict(values=values):
                parts = values
            case ast.List(elts=elts) | ast.Tuple(elts=elts) | ast.Set(elts=elts):
                parts = elts
            case ast.NamedExpr(value=value):
                parts = [value]
            case ast.Call(func=func, args=args):
                number = HAND_ON.get(names[-1])
                if number is not None:
                    parts = args[number : number + 1]
                elif isinstance(func, ast.Attribute):
                    parts = [func.value]
            case ast.Name(id=name) if name not in seen:
                parts, seen = self.values.get(name, []), (*seen, name)
        for part in parts:
            yield from self.literals(part, seen)

    def sentences(self, node: ast.AST) -> Iterator[ast.expr]:
        """The second rule: texts below a node that read like sentences."""
        if {*MARKERS, *UNREAD}.intersection(called(node)):
            return
        if isinstance(node, ast.Constant | ast.JoinedStr):
            if is_prose(said(node)):
                yield node
            return
        for child in ast.iter_child_nodes(node):
            docstring = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if not docstring:
                yield from self.sentences(child)


def assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """The names that a statement assigns to, with the values."""
    targets: list[ast.expr] = []
    target: ast.expr
    value: ast.expr | None = None
    match node:
        case ast.Assign(targets=targets, value=value):
            pass
        case (
            ast.AnnAssign(target=target)
            | ast.AugAssign(target=target)
            | ast.NamedExpr(target=target)
        ):
            targets, value = [target], node.value
    for target in targets:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
            pairs = zip(target.elts, value.elts, strict=False)
        else:
            pairs = zip([target], [value] if value else [], strict=False)
        for one, of_it in pairs:
            if isinstance(one, ast.Name | ast.Attribute):
                yield (one.id if isinstance(one, ast.Name) else one.attr), of_it


def of_class(node: ast.ClassDef) -> Iterator[ast.expr]:
    """The values in the body of a class that users read: labels, and those of choices."""
    is_choices = any(ast.unparse(base).endswith("Choices") for base in node.bases)
    for statement in node.body:
        for name, value in assigned(statement):
            # `label` of an app is a part of the names of its tables.
            if name in LABELS - {"label"}:
                yield value
            elif is_choices:
                # A choice without a label of its own is shown by its name.
                yield value.elts[-1] if isinstance(value, ast.Tuple) else value


def headings(node: ast.AST) -> Iterator[ast.expr]:
    """The headings in an assignment to HEADINGS, and the values of `short_description`."""
    for name, value in assigned(node):
        if name == "short_description":
            yield value
        elif name in HEADINGS and isinstance(value, ast.Dict):
            yield from filter(None, value.keys)
        elif name in HEADINGS and isinstance(value, ast.Tuple | ast.List):
            yield from (row.elts[0] for row in value.elts if isinstance(row, ast.Tuple))


@pytest.mark.parametrize("room", ROOMS)
def test_texts_for_users_are_marked_or_excepted(room):
    found = [text for module in modules_of(room) for text in texts_in(module) if not text.reason()]
    assert [f"{text.module}:{text.line}: {text.text}" for text in found] == []


def test_every_exception_from_translation_is_needed():
    found = [text for room in ROOMS for module in modules_of(room) for text in texts_in(module)]
    assert EXCEPTIONS.keys() - {text.reason() for text in found} == set()


NOT_MARKED = (
    'name = models.CharField("name", max_length=8)',
    'name = models.CharField(_("name"), help_text="short")',
    'class Meta:\n    verbose_name = "portal"',
    'class Kind(models.TextChoices):\n    SSH = "ssh", "by SSH"',
    'class Kind(models.TextChoices):\n    SSH = "ssh"',
    'fieldsets = ((None, {}), ("Limits", {}))',
    '_SIDEBAR = {"Access": ()}',
    'portal.short_description = "portal"',
    '@display(description="place")\ndef place(): ...',
    'messages.info(request, f"{count} jobs")',
    'text = "jobs"\nmessages.info(request, text % 3)',
    'raise forms.ValidationError({"host": "wrong"})',
    'raise PortalDisabled("disabled")',
    'text = "gone"\nraise Http404(text)',
    'append(job, Note("CREATED", f"{who} launched it"))',
    'job_move(job, to, code="X", message="over" if over else _("not yet"))',
    'def verdict() -> str:\n    return "The portal is reached by nothing."',
)
#: Marked, or not for users.
IN_ORDER = (
    '"""A module about portals."""',
    'name = models.CharField(_("name"), max_length=8, choices=Kind)',
    'raise PortalDisabled(_("The portal “%s” is disabled.") % portal.name)',
    'messages.warning(request, f"{job}: {error}")',
    'logger.warning("The portal %s is not reached.", name)',
    'raise ImproperlyConfigured("The key is not set.")',
    'rows.execute("SELECT name FROM portals")',
)


@pytest.mark.parametrize(
    ("source", "count"),
    [*((source, 1) for source in NOT_MARKED), *((source, 0) for source in IN_ORDER)],
)
def test_the_translation_check_finds_texts_for_users_that_are_not_marked_and_no_others(
    source, count
):
    assert len(unmarked_texts("portals/new.py", source)) == count


#: What a template has beside its texts, and texts that are marked.
NOT_TEXT = re.compile(
    r"{%\s*(blocktrans\w*|comment)\b.*?{%\s*end\1\s*%}|{%.*?%}|{{.*?}}|{#.*?#}"
    r"|<!--.*?-->|<(script|style|code)\b.*?</\2>|<[^>]*>|&\w+;",
    re.DOTALL,
)


def test_templates_mark_their_texts():
    paths = [path for room in ROOMS for path in (PROJECT / room).rglob("templates/**/*.html")]
    left = {path.name: NOT_TEXT.sub(" ", path.read_text("utf-8")) for path in paths}
    assert paths
    assert {
        name: text.split() for name, text in left.items() if re.search(r"[^\W\d_]{2}", text)
    } == {}


def test_every_language_has_a_catalogue():
    catalogues = {path.parent.parent.name for path in LOCALE.glob("*/LC_MESSAGES/django.po")}
    assert catalogues == {to_locale(code) for code, _name in settings.LANGUAGES}
    assert [Path(path) for path in settings.LOCALE_PATHS] == [LOCALE]


@pytest.mark.slow  # The lane fast does without gettext; for the others the scripts install it.
def test_catalogues_are_well_formed():
    for path in LOCALE.glob("*/LC_MESSAGES/django.po"):
        line = ["msgfmt", "--check", "--output-file=/dev/null", str(path)]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.slow  # As above.
def test_catalogues_hold_the_texts_of_today(tmp_path: Path):
    """Fails once a text has changed: run the first command of locale/README.md."""
    command = next(line for line in (LOCALE / "README.md").read_text().splitlines()
                   if "manage.py makemessages" in line).split()  # fmt: skip
    for room in (*ROOMS, "engine", "locale"):
        shutil.copytree(PROJECT / room, tmp_path / room)
    shutil.copy(PROJECT / "manage.py", tmp_path)
    command[0] = sys.executable

    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)

    for path in LOCALE.glob("*/LC_MESSAGES/django.po"):
        made = (tmp_path / path.relative_to(PROJECT)).read_text("utf-8")
        assert texts_of(made) == texts_of(path.read_text("utf-8")), path


def texts_of(catalogue: str) -> list[str]:
    """The lines of a catalogue but the moment at which it was made."""
    return [line for line in catalogue.splitlines() if "POT-Creation-Date" not in line]
