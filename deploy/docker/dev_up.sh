#!/usr/bin/env bash
# Ketter for developing, in containers: bash deploy/docker/dev_up.sh
# Makes .env at the first start, builds, starts, and waits until Ketter is healthy.
set -euo pipefail
cd "$(dirname "$0")"

WAIT_SECONDS=180

say() { printf '%s\n' "$*" >&2; }
fail() { say "ketter: $*"; exit 1; }
compose() { docker compose -f docker-compose.yml -f docker-compose.dev.yml "$@"; }
random() { head -c "$1" /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }

need_engine() {
    command -v docker >/dev/null 2>&1 ||
        fail "no container engine: install Docker, or run Ketter without (bash deploy/demo.sh)."
    docker compose version >/dev/null 2>&1 ||
        fail "this Docker has no 'docker compose': install its plugin, version 2.24 or newer."
    docker info >/dev/null 2>&1 ||
        fail "Docker is installed, but its engine does not answer: start it, or join its group."
}

make_env() {
    # The password and the keys of a database that stands cannot be made anew.
    if docker volume inspect ketter_db >/dev/null 2>&1; then
        fail "deploy/docker/.env is gone, but the database made with it stands (volume" \
            "ketter_db): put .env back, or drop the data with dev_down.sh --volumes."
    fi
    say "making deploy/docker/.env with new keys"
    rm -f .env.new
    (
        umask 077
        cat >.env.new <<ENV
# Made by dev_up.sh. Keep a copy apart from the database's: without
# KETTER_FIELD_KEYS the stored credentials cannot be read.
POSTGRES_PASSWORD=$(random 30)
REDIS_PASSWORD=$(random 30)
KETTER_SECRET_KEY=$(random 48)
KETTER_FIELD_KEYS=$(random 32)
# web is how the worker's diagnosis calls the web server.
KETTER_ALLOWED_HOSTS=localhost,127.0.0.1,web
KETTER_PORT=8000
ENV
    )
    mv .env.new .env
}

healthy() { compose exec -T web ketter-healthcheck /health >/dev/null 2>&1; }

wait_healthy() {
    local deadline=$((SECONDS + WAIT_SECONDS))
    until healthy; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            compose ps --all >&2
            compose logs --tail 40 migrate web worker >&2
            fail "Ketter was not healthy after $WAIT_SECONDS s; the logs are above."
        fi
        sleep 2
    done
}

need_engine
[ -e .env ] || make_env
# A file of an earlier Ketter has none.
grep -q '^REDIS_PASSWORD=' .env || printf 'REDIS_PASSWORD=%s\n' "$(random 30)" >>.env
compose up --build --detach
wait_healthy
say "Ketter is up: http://$(compose port web 8000)/admin/"
say "The first user: docker compose --project-name ketter exec web python manage.py createsuperuser"
say "To end it: bash deploy/docker/dev_down.sh"
