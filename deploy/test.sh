#!/usr/bin/env bash
# Run Ketter's tests on a machine with nothing prepared: bash deploy/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/_lib.sh
. deploy/_lib.sh

need_system_packages
need_venv dev
# All of it on three processes, each with servers of its own: most tests mostly wait, so that
# this takes two processors less time than two would.
# What somebody asks for runs as asked, in one process unless -n is among it.
[ "$#" -gt 0 ] || set -- -n 3 --dist loadgroup
exec .venv/bin/python -m pytest "$@"
