#!/usr/bin/env bash
# Run Ketter's tests on a machine with nothing prepared:
#   bash deploy/test.sh                      the whole, as continuous integration does
#   bash deploy/test.sh fast                 under 2 minutes, no server but Postgres and Redis
#   bash deploy/test.sh nightly              the whole, the largest matrices and the long soak
#   bash deploy/test.sh PYTEST ARGUMENTS     pytest with these arguments
# After fast or nightly the arguments go to pytest, too. tests/lanes.py says which tests run.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/_lib.sh
. deploy/_lib.sh

# Three processes, each with servers of its own: most tests mostly wait, so on two processors
# three processes finish sooner than two.
together=(-n 3 --dist loadgroup)
case "${1:-}" in
    # The slowest tests are listed: the whole has 40 minutes, see CONTRIBUTING.md.
    "") set -- "${together[@]}" --durations=40 --durations-min=5 ;;
    fast | nightly)
        lane="$1"
        shift
        set -- "${together[@]}" --lane "$lane" "$@"
        ;;
    # Other arguments run in one process, unless -n is among them.
esac
need_system_packages "${lane:-}"
need_venv dev
exec .venv/bin/python -m pytest "$@"
