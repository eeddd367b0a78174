"""Draws which child of a room imports which: `python -m tests.imports_diagram [ROOM...]`.

It prints one Mermaid graph: a frame for each room (`engine`, `jobs`, `portals`, `dku`, or those
named), its children (modules and folders) and an arrow for each import between two of them, also
for imports under TYPE_CHECKING and inside functions. The exit status is 1 if a room has a circle.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

ROOMS = ("dku", "jobs", "portals", "engine")
#: The children of `engine`, low to high: each imports only what stands before its own row.
LAYERS = (
    ("agent",),
    ("errors",),
    ("named_files",),
    ("types",),
    ("loans",),
    ("observer",),
    ("protocol",),
    ("connect",),
    ("session",),
    ("parcels",),
    ("proof",),
    ("plan",),
    ("carry",),
    ("share",),
    ("connection_probe", "leftovers"),
    ("phases",),
    ("transfer",),
    ("cli",),
)

#: Which children each child of a room imports, by name.
Arrows = dict[str, set[str]]


def arrows_of(rooms: Sequence[str]) -> dict[str, Arrows]:
    """The arrows between the children of each room, as grimp finds them."""
    import grimp  # Not at the top: `circles` needs no more than Python has.

    graph = grimp.build_graph(*rooms, cache_dir=None)
    found: dict[str, Arrows] = {}
    for room in rooms:
        children = sorted(graph.find_children(room))
        found[room] = {
            importer.rpartition(".")[2]: {
                imported.rpartition(".")[2]
                for imported in children
                if imported != importer
                and graph.direct_import_exists(
                    importer=importer, imported=imported, as_packages=True
                )
            }
            for importer in children
        }
    return found


def circles(arrows: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """The shortest way round each circle, from its first name in the alphabet back to it."""
    for start in sorted(arrows):
        ways: list[list[str]] = [[start]]
        seen: set[str] = set()
        while ways:
            way = ways.pop(0)
            for name in sorted(arrows.get(way[-1], ())):
                if name == start:
                    if min(way) == start:
                        yield [*way, start]
                    ways.clear()
                    break
                if name not in seen:
                    seen.add(name)
                    ways.append([*way, name])


def mermaid(rooms: Mapping[str, Arrows]) -> Iterator[str]:
    """The lines of the graph; a child that has no arrows stands alone."""
    yield "flowchart TD"
    for room, arrows in rooms.items():
        yield f"    subgraph {room}"
        for child, imported in sorted(arrows.items()):
            ends = " & ".join(f"{room}_{other}" for other in sorted(imported))
            yield f'        {room}_{child}["{child}"]' + (f" --> {ends}" if ends else "")
        yield "    end"


def main(arguments: Sequence[str]) -> int:
    """Print the graph, then each circle as a sentence on stderr."""
    rooms = arrows_of(arguments or ROOMS)
    print("\n".join(mermaid(rooms)))
    status = 0
    for room, arrows in rooms.items():
        for circle in circles(arrows):
            print(f"circle in {room}: {' -> '.join(circle)}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
