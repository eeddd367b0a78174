#!/usr/bin/env bash
# Ketter with one command, with a real transfer to watch: bash deploy/demo.sh [--exit]
# --exit ends everything after the transfer; the status is 0 only if the job is DONE
# and both trees are equal.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/_lib.sh
. deploy/_lib.sh

need_venv embedded
exec .venv/bin/python deploy/demo.py "$@"
