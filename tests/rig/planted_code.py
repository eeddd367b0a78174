"""Code that runs in every agent before anything else: a host that behaves oddly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from engine.connect import bundle

#: Has all agents that are started from then on run some Python first.
Plant = Callable[[str], None]


@contextmanager
def changing_sources(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[[Callable[[str, bytes], bytes]], None]]:
    """Let a function change the source of each module of the agents, until the end of this."""

    def change(changed: Callable[[str, bytes], bytes]) -> None:
        source_of = bundle.source_of
        monkeypatch.setattr(bundle, "source_of", lambda name: changed(name, source_of(name)))
        bundle.program.cache_clear()

    yield change
    monkeypatch.undo()
    bundle.program.cache_clear()


@contextmanager
def planting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Plant]:
    """Plant code in agents, until the end of this."""

    with changing_sources(monkeypatch) as change:

        def plant_in_agents(text: str) -> None:
            prelude = b"import errno\n" + text.encode()
            change(
                lambda name, source: (
                    source.replace(b"import errno\n", prelude, 1) if name == "wire" else source
                )
            )

        yield plant_in_agents


#: Has the call that renames without replacing (`FreeNames`) wrapped, too.
WRAP_EXCLUSIVE_RENAME = """
def _wrap_exclusive_rename(wrap):
    import ctypes
    load = ctypes.CDLL
    def loaded(*args, **kwargs):
        library = load(*args, **kwargs)
        call = getattr(library, "renameat2", None)
        if call is not None:
            library.renameat2 = wrap(call)
        return library
    ctypes.CDLL = loaded
"""
_FOLDING = (
    WRAP_EXCLUSIVE_RENAME
    + """
def _fold_names(below, fold):
    import os
    def folds(fd, name):
        return below in os.readlink("/proc/self/fd/%d" % fd) and os.fsencode(name)[:1] != b"."
    def folded(call, at, *keys):
        def with_folded_name(*args, **kwargs):
            fds = [kwargs[key] for key in keys if kwargs.get(key) is not None]
            args = list(args)
            for place, fd in zip(at, fds):
                if folds(fd, args[place]):
                    args[place] = fold(args[place])
            return call(*args, **kwargs)
        return with_folded_name
    for name in ("open", "mkdir", "unlink", "stat", "rmdir", "utime"):
        setattr(os, name, folded(getattr(os, name), [0], "dir_fd"))
    os.rename = folded(os.rename, [0, 1], "src_dir_fd", "dst_dir_fd")
    def folded_exclusively(call):
        def with_folded_names(fd, name, new_fd, new_name, flag):
            new_name = fold(new_name) if folds(new_fd, new_name) else new_name
            return call(fd, name, new_fd, new_name, flag)
        return with_folded_names
    _wrap_exclusive_rename(folded_exclusively)
"""
)
#: Below a folder called b names are one whatever their case, as on a Mac.
FOLDING = (
    _FOLDING
    + """
_fold_names("/b", lambda name: name.lower())
"""
)
#: Below the portal srvtrf names are one whatever their case and Unicode form.
FOLDING_FORMS = (
    _FOLDING
    + """
def _one_form(name):
    import os, unicodedata
    folded = unicodedata.normalize("NFC", os.fsdecode(name)).lower()
    return os.fsencode(folded) if isinstance(name, bytes) else folded
_fold_names("/srvtrf", _one_form)
"""
)
#: A file system with short names, as encrypted ones have.
SHORT_NAMES = """
def _short_names():
    import os
    def limited(call):
        def with_limit(name, *args, **kwargs):
            fd = kwargs.get("dir_fd")
            if fd is not None and "/b" in os.readlink("/proc/self/fd/%d" % fd) and len(name) > 100:
                raise OSError(errno.ENAMETOOLONG, "File name too long", name)
            return call(name, *args, **kwargs)
        return with_limit
    for name in ("open", "mkdir", "unlink", "stat"):
        setattr(os, name, limited(getattr(os, name)))
_short_names()
"""
#: Every change adds a byte to the log; the one that makes it so long kills its agent.
DYING = (
    WRAP_EXCLUSIVE_RENAME
    + """
def _dying():
    import os, signal
    def deadly(call):
        def with_death(*args, **kwargs):
            fd = os.open(LOG, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            os.write(fd, b".")
            at = os.fstat(fd).st_size
            os.close(fd)
            try:
                return call(*args, **kwargs)
            finally:
                if at == DEADLY:
                    os.kill(os.getpid(), signal.SIGKILL)
        return with_death
    for name in ("rename", "link", "unlink", "rmdir", "mkdir", "utime", "fchmod", "symlink"):
        setattr(os, name, deadly(getattr(os, name)))
    _wrap_exclusive_rename(deadly)
_dying()
"""
)
