#!/usr/bin/env bash
# Run Ketter's tests on a machine with nothing prepared: bash deploy/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/_lib.sh
. deploy/_lib.sh

need_system_packages
need_venv dev
# All of it on two processes, each with servers of its own: most tests mostly wait.
# What somebody asks for runs as asked, in one process unless -n is among it.
[ "$#" -gt 0 ] || set -- -n 2 --dist loadgroup
exec .venv/bin/python -m pytest "$@"
