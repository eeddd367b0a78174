"""The pages agree with the code and with each other: links, modules, decisions, targets, words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.imports_diagram import LAYERS
from tests.rig.project import PROJECT

pytestmark = pytest.mark.fast

DOCS = PROJECT / "docs"
DECISIONS = sorted((DOCS / "decisions").glob("[0-9]*.md"))
TOP = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
PAGES = [*(PROJECT / name for name in TOP), *sorted(DOCS.rglob("*.md"))]
ROOMS = ("dku", "engine", "jobs", "ketter_site", "portals")

LINK = re.compile(r"\]\(([^)\s]+)\)")
STATUS = re.compile(r"^Status: (accepted|replaced by \d+), (\d{4}-\d\d-\d\d)$", re.MULTILINE)
#: Words that hide who acts; CONTRIBUTING asks for plain ones.
VAGUE = re.compile(r"\b(somebody|nobody|whoever|likewise|anew|told|of ours)\b", re.IGNORECASE)
#: A user of the system, and old names, which have to be written.
QUOTED = re.compile(r"`[^`]*`")


def name_of(page: Path) -> str:
    """A page's path from the root."""
    return page.relative_to(PROJECT).as_posix()


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_to_an_existing_file_and_heading(page):
    broken = []
    for link in LINK.findall(page.read_text("utf-8")):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_the_index_of_docs_has_every_page():
    index = (DOCS / "README.md").read_text("utf-8")
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in LINK.findall(index)}
    pages = {*DOCS.glob("*.md"), *DOCS.glob("*/README.md")} - {DOCS / "README.md"}
    assert [name_of(page) for page in sorted(pages - linked)] == []


def test_the_index_of_decisions_has_each_with_its_title_status_and_date():
    expected = []
    for page in DECISIONS:
        text = page.read_text("utf-8")
        number, _, title = text.splitlines()[0].removeprefix("# ").partition(". ")
        assert int(page.name[:4]) == int(number)
        status = STATUS.search(text)
        assert status, f"{page.name} has no line “Status: …, YYYY-MM-DD”"
        expected.append(f"| [{number}]({page.name}) | {title} | {status[1]} | {status[2]} |")
    index = (DOCS / "decisions" / "README.md").read_text("utf-8").splitlines()
    assert [line for line in index if line.startswith("| [")] == expected


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_has_its_context_choice_and_cost(page):
    text = page.read_text("utf-8")
    for part in ("**Context.**", "**Choice", "**Cost.**"):
        assert part in text


def modules_on_the_page() -> set[str]:
    """The modules that docs/architecture.md names; a folder stands for all modules in it."""
    found, room, folder = set(), "", ""
    for line in (DOCS / "architecture.md").read_text("utf-8").splitlines():
        heading = re.match(r"### `(\w+)/`", line)
        if heading:
            room = folder = heading[1]
        elif opens := re.match(r"`(\w+/[\w/]+)/`.*: ", line):
            folder = opens[1]
        elif not (room and line.startswith("| `")):
            continue
        cell = line.split(" | ")[0] if line.startswith("|") else line
        for name in re.findall(r"`([\w/]+(?:\.py|/))`", cell):
            places = [base / name for base in (PROJECT / folder, PROJECT / room, PROJECT)]
            place = next((place for place in places if place.exists()), None)
            assert place, f"docs/architecture.md names {name}, which is not there"
            if name.endswith(".py"):
                found.add(name_of(place))
            elif line.startswith("|"):
                found |= {name_of(path) for path in place.glob("*.py")}
    return found


def test_the_architecture_has_a_line_for_every_module():
    modules = {
        name_of(path)
        for room in ROOMS
        for path in (PROJECT / room).rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    }
    assert sorted(modules - modules_on_the_page()) == [], "give each its line"


def test_the_architecture_names_the_layers_of_the_engine_in_their_order():
    text = (DOCS / "architecture.md").read_text("utf-8")
    sentence = text.split("each child imports only lower ones: ", 1)[1].split(".\n", 1)[0]
    named = re.findall(r"`(\w+)`", sentence)
    assert sorted(named) == sorted(child for row in LAYERS for child in row)
    level = {child: number for number, row in enumerate(LAYERS) for child in row}
    assert [level[child] for child in named] == sorted(level.values())


def test_the_glossary_has_twenty_words_of_two_sentences_each():
    rows = re.findall(
        r"^\| \*\*(.+?)\*\* \| (.+) \|$", (DOCS / "glossary.md").read_text("utf-8"), re.MULTILINE
    )
    assert len(rows) == 20
    assert [word for word, _ in rows] == sorted(word for word, _ in rows)
    for word, meaning in rows:
        plain = re.sub(r"\([^)]*\)|`[^`]*`", "", meaning)
        assert len(re.findall(r"\.(?= |$)", plain)) == 2, word


def test_the_make_targets_that_pages_name_are_there_and_run_what_ci_runs():
    makefile = (PROJECT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"setup", "up", "test", "fast", "nightly", "lint", "bench", "demo"} <= targets
    for page in PAGES:
        named = set(re.findall(r"^make (\w+)|`make (\w+)", page.read_text("utf-8"), re.MULTILINE))
        assert {first or second for first, second in named} <= targets, name_of(page)
    for command in ("deploy/test.sh", "deploy/test.sh fast", ".ci/run lint", "deploy/demo.sh"):
        assert f"\tbash {command}" in makefile


def test_the_changelog_keeps_its_form():
    text = (PROJECT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    for version in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_page_has_no_word_that_hides_who_acts(page):
    text = QUOTED.sub("", page.read_text("utf-8"))
    assert sorted({match.group().lower() for match in VAGUE.finditer(text)}) == []
