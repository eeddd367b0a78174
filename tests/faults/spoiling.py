"""What happens to a file while a job has it: it is changed, refused, or it rots."""

from __future__ import annotations

from pathlib import Path

#: A file of `build_small`.
CLIP = "reel_00/clip_0/frame_000000.dpx"
#: A byte of one file changes after it was written; ONCE, or each time.
AT_REST = """
_read_back = Receiver._read_back
def _rot(self):
    for entry in self._entries:
        if entry.path.endswith("000007.dpx") and not (ONCE and os.path.exists(FLAG)):
            open(FLAG, "w").close()
            folder, name = self._staging.parent(entry.path)
            fd = os.open(name, os.O_RDWR, dir_fd=folder)
            byte = os.pread(fd, 1, 3)
            os.pwrite(fd, bytes([byte[0] ^ 1]), 3)
            os.close(fd)
    _read_back(self)
Receiver._read_back = _rot
"""
#: No user can read the file of one name.
REFUSING = """
def _refusing():
    import os
    real = os.open
    def refuse(name, *args, **kwargs):
        if name == "frame_000000.dpx" and not args[0] & os.O_CREAT:
            raise PermissionError(errno.EACCES, "Permission denied", name)
        return real(name, *args, **kwargs)
    os.open = refuse
_refusing()
"""


def rewrite(path: Path) -> None:
    """Other bytes, as many as before, at another time."""
    path.write_bytes(bytes(path.stat().st_size))
