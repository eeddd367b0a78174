# Shared by the scripts of this folder; bash 3.2 is enough (macOS has no newer one).
# shellcheck shell=bash
# It is sourced, with the project's root as the working directory:
#   need_usable_folder   fail with a sentence if nothing can be written or run in that folder
#   need_venv dev        .venv with requirements/dev.txt, made or brought up to date
#   need_system_packages what the tests need from the system: installed by root on Debian,
#                        else named

say() { printf '%s\n' "$*" >&2; }
fail() { say "ketter: $*"; exit 1; }

# Print a Python >= 3.11, the oldest first: that is the one Ketter is tested on.
find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3.12 python3.13 python3.14 python3 python; do
        [ -n "$candidate" ] || continue
        command -v "$candidate" >/dev/null 2>&1 || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return 0
        fi
    done
    return 1
}

# Fail with the sentence for a machine on which find_python finds none.
no_python() {
    local found version what="found none" how="install it"
    if found="$(command -v python3 || command -v python)" &&
        version="$("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)"; then
        what="$found is $version"
    fi
    if is_debian; then how="apt install python3 python3-venv (Debian 12 or newer)"; fi
    fail "Ketter needs Python 3.11 or newer, but $what: $how, or name one in PYTHON, then start again."
}

# Fail if nothing can be written or run below the project's folder.
need_usable_folder() {
    local probe=".ketter-probe-$$" status=0
    if ! printf '#!/bin/sh\nexit 0\n' 2>/dev/null >"$probe"; then
        rm -f "$probe"
        fail "$PWD cannot be written to (full, read-only, or another user's): make room there," \
            "or clone Ketter to a folder of $(id -un 2>/dev/null || id -u), then start again."
    fi
    chmod 700 "$probe" && "./$probe" 2>/dev/null || status=$?
    rm -f "$probe"
    [ "$status" -eq 0 ] || fail "programs below $PWD cannot be run (its file system is mounted" \
        "noexec, probably): clone Ketter to another file system, or mount this one with exec."
}

is_debian() { [ -e /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Install Debian packages as root, without starting their services.
apt_install() {
    local policy=/usr/sbin/policy-rc.d status=0
    say "installing with apt: $*"
    # Services that a package brings must not start: tests run their own, on loopback.
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    else
        policy=""
    fi
    apt_quiet install -y --no-install-recommends "$@" ||
        { apt_quiet update && apt_quiet install -y --no-install-recommends "$@"; } || status=$?
    [ -z "$policy" ] || rm -f "$policy"
    return "$status"
}

apt_quiet() { DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null >/dev/null; }

# Make an empty .venv; install Python's venv package first if it is missing.
make_venv() {
    local python="$1" minor
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        minor="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        is_debian || fail "$python has no venv module: install Python's venv and ensurepip."
        is_root || fail "$python has no venv module: sudo apt install python$minor-venv"
        apt_install "python$minor-venv" || fail "apt could not install python$minor-venv:" \
            "connect this machine to its Debian mirror, or install that package, then start again."
    fi
    say "making .venv with $python"
    rm -rf .venv
    mkdir .venv
    echo "$$" >"$UNFINISHED"
    "$python" -m venv .venv || { rm -rf .venv; fail "$python could not make .venv in $PWD."; }
}

# Print what .venv is made from; if that differs from the recorded line, install again.
# (No here-document: an older bash writes it to a file in /tmp, which may be full.)
requirements_mark() {
    .venv/bin/python -c 'import hashlib, pathlib, sys
print(sys.argv[1], hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest(), sys.version)' \
        "requirements/$1.txt"
}

# Holds the id of the process that makes .venv; a killed one leaves it, and half a .venv.
UNFINISHED=.venv/ketter-unfinished

# Wait while another process makes .venv; remove the half .venv of a killed one.
drop_unfinished_venv() {
    local maker waited=0
    while maker="$(cat "$UNFINISHED" 2>/dev/null)"; do
        if [ "$waited" -ge 300 ] || ! kill -0 "${maker:-0}" 2>/dev/null; then
            rm -rf .venv
            return 0
        fi
        [ "$waited" -gt 0 ] || say "waiting for process $maker, which makes .venv"
        sleep 1
        waited=$((waited + 1))
    done
}

# need_venv base|embedded|dev: .venv holds exactly those requirements, or more.
need_venv() {
    local set="$1" mark python candidate
    need_usable_folder
    drop_unfinished_venv
    # A virtual environment does not survive being moved; its Python may be gone, too.
    if ! .venv/bin/python -c 'import sys, pathlib
sys.exit(pathlib.Path(sys.prefix).resolve() != pathlib.Path(".venv").resolve())' 2>/dev/null; then
        python="$(find_python)" || no_python
        make_venv "$python"
    fi
    # The tests' requirements include the others: a .venv for tests serves for a demo.
    for candidate in "$set" dev; do
        mark="$(requirements_mark "$candidate")"
        if grep -qxF "$mark" .venv/ketter-installed 2>/dev/null; then return 0; fi
    done
    say "installing requirements/$set.txt into .venv"
    rm -f .venv/ketter-installed
    echo "$$" >"$UNFINISHED"
    pip_install "$set"
    requirements_mark "$set" >.venv/ketter-installed
    rm -f "$UNFINISHED"
}

# Install requirements/$1.txt; show pip's output only if it fails.
pip_install() {
    local log=.venv/ketter-pip.log why="the end of its output is above"
    if .venv/bin/python -m pip install --disable-pip-version-check --no-input --no-color \
        --progress-bar off --require-hashes -r "requirements/$1.txt" </dev/null >"$log" 2>&1; then
        rm -f "$log"
        return 0
    fi
    tail -n 5 "$log" >&2 || true
    rm -f "$UNFINISHED"
    if grep -qi 'no space left on device' "$log"; then
        why="there is no room left: make room in $PWD and in ${TMPDIR:-/tmp}, then start again"
        echo "$$" >"$UNFINISHED" || true  # The next start makes an empty .venv.
    elif grep -qiE 'connection|resolve|timed out|no matching distribution|could not find a version' "$log"; then
        why="it reached no package index: connect this machine to the internet, or name an index"
        why="$why in PIP_INDEX_URL, then start again"
    fi
    fail "pip could not install requirements/$1.txt: $why."
}

have_sbin() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# sshd for tests over SSH, ip for the two-host rig, unzip and bsdtar to read Ketter's archives,
# gettext for the catalogues of translations, file systems, login shells: installed by root on
# Debian, else named. The fast lane needs ssh alone.
need_system_packages() {
    local missing="" lane="${1:-}"
    command -v ssh >/dev/null 2>&1 || missing="$missing openssh-client"
    [ "$lane" = fast ] || have_sbin sshd || missing="$missing openssh-server"
    [ "$lane" = fast ] || command -v xgettext >/dev/null 2>&1 || missing="$missing gettext"
    if [ "$lane" != fast ] && [ "$(uname)" = Linux ]; then
        have_sbin ip || missing="$missing iproute2"
        # Two other programs that read the archives Ketter makes.
        command -v unzip >/dev/null 2>&1 || missing="$missing unzip"
        command -v bsdtar >/dev/null 2>&1 || missing="$missing libarchive-tools"
        # Access control lists, which some tests set.
        command -v setfacl >/dev/null 2>&1 || missing="$missing acl"
        # File systems whose inode numbers change.
        command -v fusermount3 >/dev/null 2>&1 || missing="$missing fuse3"
        command -v bindfs >/dev/null 2>&1 || missing="$missing bindfs"
        command -v sshfs >/dev/null 2>&1 || missing="$missing sshfs"
        # File systems that only root can mount here: the tests try a target on each.
        if is_root; then
            have_sbin mkfs.btrfs || missing="$missing btrfs-progs"
            have_sbin mkfs.ntfs || missing="$missing ntfs-3g"
            have_sbin mount.exfat-fuse || missing="$missing exfat-fuse"
            have_sbin mkfs.exfat || missing="$missing exfatprogs"
            # Login shells of far accounts, which only root can make.
            command -v fish >/dev/null 2>&1 || missing="$missing fish"
            command -v tcsh >/dev/null 2>&1 || missing="$missing tcsh"
            command -v zsh >/dev/null 2>&1 || missing="$missing zsh"
            command -v busybox >/dev/null 2>&1 || missing="$missing busybox"
            have_sbin mkfs.ext4 || missing="$missing e2fsprogs"
            have_sbin mkfs.xfs || missing="$missing xfsprogs"
            command -v mksquashfs >/dev/null 2>&1 || missing="$missing squashfs-tools"
            command -v mergerfs >/dev/null 2>&1 || missing="$missing mergerfs"
            # Of the shims that stand for file systems of other machines (NFS, SMB).
            command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
        fi
    fi
    [ -n "$missing" ] || return 0
    if is_root && is_debian; then
        # shellcheck disable=SC2086  # one word per package
        apt_install $missing || fail "apt could not install$missing: connect this machine to" \
            "its Debian mirror, or install them by hand, then start again."
        case "$missing" in
            *openssh-server*)
                # sshd must not start with the next boot either: it is for these tests only.
                if [ -d /run/systemd/system ]; then
                    systemctl disable --quiet ssh.service ssh.socket || true
                fi
                ;;
        esac
    else
        say "missing for some tests:$missing (install them; some tests will fail or be skipped)"
    fi
}
