# Shared by the scripts of this folder; bash 3.2 is enough (macOS has no newer one).
# shellcheck shell=bash
# It is sourced, with the project's root as the working directory:
#   need_venv dev        .venv with requirements/dev.txt, made or brought up to date
#   need_system_packages what the tests need from the system, where we may install it

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

is_debian() { [ -e /etc/debian_version ] && command -v apt-get >/dev/null 2>&1; }
is_root() { [ "$(id -u)" -eq 0 ]; }

# Install Debian packages as root, without their services being started.
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

# Make an empty .venv, with what the system needs for that.
make_venv() {
    local python="$1" minor
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        minor="$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
        is_debian || fail "$python has no venv module: install Python's venv and ensurepip."
        is_root || fail "$python has no venv module: sudo apt install python$minor-venv"
        apt_install "python$minor-venv" || fail "apt could not install python$minor-venv."
    fi
    say "making .venv with $python"
    rm -rf .venv
    "$python" -m venv .venv || { rm -rf .venv; fail "$python could not make .venv."; }
}

# What an installed .venv was made from; another answer means: install again.
requirements_mark() {
    .venv/bin/python - "requirements/$1.txt" <<'PYTHON'
import hashlib, pathlib, sys
print(sys.argv[1], hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest(), sys.version)
PYTHON
}

# need_venv base|embedded|dev: .venv holds exactly those requirements, or more.
need_venv() {
    local set="$1" mark python candidate
    # A virtual environment does not survive being moved; its Python may have gone, too.
    if ! .venv/bin/python -c 'import sys, pathlib
sys.exit(pathlib.Path(sys.prefix).resolve() != pathlib.Path(".venv").resolve())' 2>/dev/null; then
        python="$(find_python)" || fail "Ketter needs Python 3.11 or newer: install it first$(
            is_debian && printf ' (Debian: apt install python3 python3-venv)')."
        make_venv "$python"
    fi
    # The tests' requirements include the others: a .venv for tests will do for a demo.
    for candidate in "$set" dev; do
        mark="$(requirements_mark "$candidate")"
        if grep -qxF "$mark" .venv/ketter-installed 2>/dev/null; then return 0; fi
    done
    say "installing requirements/$set.txt into .venv"
    rm -f .venv/ketter-installed
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r "requirements/$set.txt" </dev/null ||
        fail "pip could not install requirements/$set.txt."
    requirements_mark "$set" >.venv/ketter-installed
}

have_sbin() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || [ -x "/sbin/$1" ]; }

# sshd for tests over SSH, ip for the two-host rig, unzip and bsdtar to read our archives:
# installed where we may, else named.
need_system_packages() {
    local missing=""
    have_sbin sshd || missing="$missing openssh-server"
    command -v ssh >/dev/null 2>&1 || missing="$missing openssh-client"
    if [ "$(uname)" = Linux ]; then
        have_sbin ip || missing="$missing iproute2"
        # Two further readers of the archives we make.
        command -v unzip >/dev/null 2>&1 || missing="$missing unzip"
        command -v bsdtar >/dev/null 2>&1 || missing="$missing libarchive-tools"
    fi
    [ -n "$missing" ] || return 0
    if is_root && is_debian; then
        # shellcheck disable=SC2086  # one word per package
        apt_install $missing || fail "apt could not install:$missing"
        case "$missing" in
            *openssh-server*)
                # Nor may it start with the next boot: nobody asked for a way in from outside.
                if [ -d /run/systemd/system ]; then
                    systemctl disable --quiet ssh.service ssh.socket || true
                fi
                ;;
        esac
    else
        say "missing for some tests:$missing (install them; some tests will fail or be skipped)"
    fi
}
