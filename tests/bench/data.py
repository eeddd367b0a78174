"""What is transferred: the same bytes on every machine, for the same scale."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
#: Files in one folder, and folders in one folder.
PER_FOLDER = 100


def build(name: str, root: Path, scale: float) -> Path:
    """Make the data of that name below `root` unless it is there; return its folder or file."""
    maker, _ = DATA[name]
    path = root / name
    if not path.exists():
        path.mkdir()
        maker(path, scale)
    return path / _FILES[name] if name in _FILES else path


def bytes_of(name: str, scale: float) -> int:
    """About how much room the data takes."""
    return int(DATA[name][1] * scale)


def _small(folder: Path, scale: float) -> None:
    dice = random.Random("small")
    for number in range(_scaled(10_000, scale)):
        _write(folder, f"clip_{number // PER_FOLDER:03}", f"frame_{number:06}.dpx").write_bytes(
            dice.randbytes(dice.randint(KIB // 2, 16 * KIB))
        )


def _session(folder: Path, scale: float) -> None:
    dice = random.Random("session")
    block = dice.randbytes(9 * MIB)
    for number in range(_scaled(300, scale)):
        start, size = dice.randrange(MIB), dice.randint(MIB, 8 * MIB)
        _write(folder, f"audio_{number // PER_FOLDER}", f"take_{number:03}.wav").write_bytes(
            block[start : start + size]
        )
    for number in range(_scaled(5_000, scale)):
        _write(folder, f"fades_{number // PER_FOLDER:02}", f"fade_{number:04}.fad").write_bytes(
            dice.randbytes(dice.randint(1, 2 * KIB))
        )
    (folder / ".session").write_bytes(b"hidden")


def _write(root: Path, folder: str, name: str) -> Path:
    (root / folder).mkdir(exist_ok=True)
    return root / folder / name


def _one_file(size: int, folder: Path, scale: float) -> None:
    fill(folder / "tape.mov", _scaled(size, scale))


def _byte(folder: Path, scale: float) -> None:
    (folder / "one").write_bytes(b"1")


def _scaled(number: int, scale: float) -> int:
    return max(1, round(number * scale))


#: Who makes it, and about how many bytes it has at scale 1.
DATA: dict[str, tuple[Callable[[Path, float], None], int]] = {
    "small": (_small, 130 * MIB),  # Every file fills its last page.
    "session": (_session, 1450 * MIB),
    "large": (partial(_one_file, 2 * GIB), 2 * GIB),
    "middle": (partial(_one_file, 256 * MIB), 256 * MIB),
    "byte": (_byte, 1),
}
#: Where the source is not the folder but the one file in it.
_FILES = {"large": "tape.mov", "middle": "tape.mov", "byte": "one"}


def fill(path: Path, size: int) -> None:
    """Make a file of that size without holes, of which no two blocks are equal."""
    block = bytearray(random.Random("block").randbytes(4 * MIB))
    with open(path, "wb", buffering=0) as file:
        for number in range(0, size, len(block)):
            block[:8] = number.to_bytes(8, "big")
            file.write(memoryview(block)[: size - number])


def hollow(path: Path, size: int) -> None:
    """Make a file of that size that reads as zeros and takes no room."""
    with open(path, "wb") as file:
        file.truncate(size)


def build_many(root: Path, files: int) -> int:
    """Fill `root` with that many tiny files, quickly; return how many entries and bytes they make.

    Each holds its own number, so that no two are the same.
    """
    root.mkdir()
    folders = range(0, files, PER_FOLDER)
    for start in folders[::PER_FOLDER]:
        os.mkdir(_many_folder(root, start)[0])
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(partial(_fill_folder, root, files), folders, chunksize=50)
        return sum(made)


def _many_folder(root: Path, start: int) -> tuple[str, str]:
    """The two folders, one in the other, that hold the hundred files from number `start` on."""
    upper = f"{root}/reel_{start // PER_FOLDER // PER_FOLDER:04}"
    return upper, f"{upper}/clip_{start // PER_FOLDER:06}"


def _fill_folder(root: Path, files: int, start: int) -> int:
    folder = _many_folder(root, start)[1]
    os.mkdir(folder)
    at = os.open(folder, os.O_RDONLY)
    written = 0
    for number in range(start, min(start + PER_FOLDER, files)):
        file = os.open(f"frame_{number:07}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
        written += os.write(file, b"%07d" % number)
        os.close(file)
    os.close(at)
    return written
