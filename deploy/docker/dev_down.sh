#!/usr/bin/env bash
# Ends what dev_up.sh started: bash deploy/docker/dev_down.sh [--volumes]
# The data stays for the next start, unless --volumes drops it.
set -euo pipefail
cd "$(dirname "$0")"

say() { printf '%s\n' "$*" >&2; }
fail() { say "ketter: $*"; exit 1; }

case "$*" in
"") drop=() ;;
--volumes) drop=(--volumes) ;;
*)
    say "usage: dev_down.sh [--volumes]"
    exit 2
    ;;
esac
command -v docker >/dev/null 2>&1 || fail "no container engine, so nothing of Ketter runs in one."
docker info >/dev/null 2>&1 || fail "the container engine does not answer, so nothing runs in it."

# Compose wants a password even to end things; this one is never used.
export POSTGRES_PASSWORD="${POSTGRES_PASSWORD:-none}"
docker compose -f docker-compose.yml -f docker-compose.dev.yml down ${drop[@]+"${drop[@]}"}
if [ "$*" = --volumes ]; then
    say "The database, the queue and the transferred data are dropped; .env is kept."
else
    say "Ended; the data is kept (dev_down.sh --volumes drops it)."
fi
