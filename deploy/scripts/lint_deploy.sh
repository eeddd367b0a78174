#!/usr/bin/env bash
# Checks files that no test runs: compose files, Dockerfiles and shell scripts.
# bash deploy/scripts/lint_deploy.sh; the status is 0 only without any finding.
set -euo pipefail
cd "$(dirname "$0")/../.."

status=0

# lint TITLE PATTERN... -- COMMAND...: run the command on the files git knows.
lint() {
    local title="$1" program file
    local -a patterns=() files=()
    shift
    while [ "$1" != -- ]; do patterns+=("$1"); shift; done
    program="$2"
    shift 2
    while IFS= read -r -d '' file; do
        files+=("$file")
    done < <(git ls-files -z --cached --others --exclude-standard -- "${patterns[@]}")
    if [ "${#files[@]}" -eq 0 ]; then
        echo "lint: no $title to check" >&2
        status=1
        return
    fi
    echo "lint: ${#files[@]} $title with $program" >&2
    "$(tool "$program")" "$@" "${files[@]}" || status=1
}

# The project's own tools first, then those of the Python that runs (CI, other venvs).
tool() {
    if [ -x ".venv/bin/$1" ]; then
        echo ".venv/bin/$1"
    elif command -v "$1" >/dev/null 2>&1; then
        command -v "$1"
    else
        echo "lint: $1 is missing: it comes with requirements/dev.txt (bash deploy/test.sh)" >&2
        exit 1
    fi
}

lint "compose files" '*docker-compose*.yml' -- check-jsonschema --builtin-schema vendor.compose-spec
lint "Dockerfiles" '*Dockerfile' -- hadolint
lint "shell scripts" '*.sh' '.ci/run' -- shellcheck --external-sources
exit "$status"
