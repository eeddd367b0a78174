#!/usr/bin/env bash
# Run Ketter's tests on a machine with nothing prepared: bash deploy/test.sh [PYTEST ARGUMENTS]
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/_lib.sh
. deploy/_lib.sh

need_system_packages
need_venv dev
exec .venv/bin/python -m pytest "$@"
