"""What mallory does on a shared host: Python for `Host.act`, with its words in `sys.argv`."""

from __future__ import annotations

#: Names that an agent opens in a staging folder.
NOTES = ("fence", "made", "times", "gate", "journal", "a1.lock", "a1.end", "fence.new")

#: Makes a staging folder and fills it: argv is the folder, its mode, what to put there, and a path
#: that the links and notes name.
_PLANT = """
import json, os, sys
folder, mode, kind, precious = sys.argv[1:]
names = NOTES
if kind == "is_link":
    os.symlink(precious, folder)
    sys.exit()
if kind == "is_file":
    open(folder, "w").close()
    os.chmod(folder, int(mode, 8))
    sys.exit()
if kind == "is_fifo":
    os.mkfifo(folder)
    os.chmod(folder, int(mode, 8))
    sys.exit()
os.mkdir(folder)
own = os.path.expanduser("~/twice")
open(own, "a").close()
os.chmod(own, 0o666)
for name in names:
    path = os.path.join(folder, name)
    if kind == "fifos":
        os.mkfifo(path)
        os.chmod(path, 0o666)
    elif kind == "links":
        os.symlink(precious + "/key", path)
    elif kind == "hard_links":
        try:
            os.link(own, path)
        except OSError:  # The home is another file system.
            os.close(os.open(path, os.O_CREAT, 0o666))
            os.link(path, path + ".twin")
if kind == "links":
    os.symlink(precious, os.path.join(folder, "a1"))
if kind == "notes":
    with open(os.path.join(folder, "made"), "w") as file:
        json.dump([precious + "/empty", "/root/kept", "/home/ketter"], file)
    with open(os.path.join(folder, "fence"), "w") as file:
        file.write("zzz")
if kind == "high_fence":
    with open(os.path.join(folder, "fence"), "w") as file:
        file.write("99999999")
os.chmod(folder, int(mode, 8))
"""
PLANT = _PLANT.replace("NOTES", repr(NOTES))
PLANTS = ("empty", "fifos", "links", "hard_links", "notes", "high_fence", "is_link", "is_file", "is_fifo")  # noqa: E501  # fmt: skip

#: Gives what was staged other bytes, and the journal the digests of these.
FORGE = """
import sys
from pathlib import Path
from tests.rig.interrupted import forge
folder = Path(sys.argv[1])
forge(folder)
folder.chmod(0o777)
"""

#: Waits for a name to appear in a folder, then swaps the folder by a link to another one and back,
#: as fast as it can, until it is killed: argv is the folder, what the name begins with, the other.
SWAP = """
import os, sys
folder, begins, other = sys.argv[1:]
print("watching", flush=True)
while not any(name.startswith(begins) for name in os.listdir(folder)):
    pass
print("swapping", flush=True)
away, link = folder + ".away", folder + ".link"
while True:
    try:
        os.rename(folder, away)
        os.symlink(other, folder)
        os.unlink(folder)
        os.rename(away, folder)
    except OSError:
        pass
"""

#: Once the first file stands, makes the next ones itself: argv is the folder, and the names in the
#: order in which they are published.
APPEAR = """
import os, sys, time
folder, names = sys.argv[1], sys.argv[2:]
print("waiting", flush=True)
made = []
for name, after in zip(names, names[1:]):
    path = os.path.join(folder, name)
    until = time.monotonic() + 20
    while not os.path.lexists(path) and time.monotonic() < until:
        pass
    try:
        fd = os.open(os.path.join(folder, after), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except OSError:
        continue
    os.write(fd, b"mallory's")
    os.close(fd)
    print(after, flush=True)
"""

#: Reads what it can of every process and of the temporary folders, in a loop, into a file.
READ_ALL = """
import os, stat, sys
out = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
seen = set()
def keep(what, data):
    if data and (what, data) not in seen:
        seen.add((what, data))
        os.write(out, what.encode("utf-8", "replace") + b"\\n" + data + b"\\n")
def read(path):
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        keep(os.path.basename(path), os.read(fd, 1 << 20))
    except OSError:
        pass
    finally:
        os.close(fd)
print("reading", flush=True)
looks = 0
while True:
    for pid in os.listdir("/proc"):
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        for name in ("cmdline", "environ", "stack", "syscall", "maps"):
            read("/proc/%s/%s" % (pid, name))
        try:
            if os.stat("/proc/" + pid).st_uid == os.getuid():
                continue  # Her own agent's: to read its pipes would only break it.
            for number in os.listdir("/proc/%s/fd" % pid):
                try:
                    fd = os.open("/proc/%s/fd/%s" % (pid, number), os.O_RDONLY | os.O_NONBLOCK)
                except OSError:
                    continue
                try:
                    keep("fd", os.read(fd, 1 << 16))
                except OSError:
                    pass
                finally:
                    os.close(fd)
        except OSError:
            pass
    for top in ("/tmp", "/dev/shm", "/run"):
        for folder, folders, files in os.walk(top):
            if os.path.basename(folder) == "pub" or "/src" in folder:
                folders[:] = []
                continue
            for name in files:
                read(os.path.join(folder, name))
    looks += 1
    if looks in (1, 3):
        print("looked", flush=True)
"""

#: Waits for folders of ssh's in /tmp, and for spools, and puts links in their places if it can.
MEDDLE_IN_TMP = """
import os, sys
precious = sys.argv[1]
print("meddling", flush=True)
while True:
    for name in os.listdir("/tmp"):
        try:
            if name.startswith("ketter") and os.lstat("/tmp/" + name).st_uid != os.getuid():
                os.rename("/tmp/" + name, "/tmp/mallory-" + name)
                os.symlink(precious, "/tmp/" + name)
        except OSError:
            pass
"""
