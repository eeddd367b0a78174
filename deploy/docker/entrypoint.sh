#!/bin/sh
# The first program of every Ketter container: refuses settings that cannot work
# in a container, then becomes the command.
set -eu

refuse() {
    echo "ketter: $*" >&2
    exit 78 # EX_CONFIG
}

# The host of a URL, without user, password and port.
host_of() {
    rest=${1#*://}
    rest=${rest%%[/?]*}
    rest=${rest##*@}
    case "$rest" in
    '['*) echo "${rest%%]*}]" ;;
    *) echo "${rest%%:*}" ;;
    esac
}

for name in KETTER_SECRET_KEY KETTER_FIELD_KEYS DATABASE_URL REDIS_URL; do
    eval "value=\${$name:-\${${name}_FILE:-}}"
    [ -n "$value" ] || refuse "$name is not set; deploy/docker/README.md says where from."
done

# In a container localhost is the container itself, where no server runs.
for name in DATABASE_URL REDIS_URL; do
    eval "value=\${$name:-}"
    case "$(host_of "$value")" in
    localhost | 127.* | '[::1]')
        refuse "$name points at localhost, which in a container is the container itself:" \
            "name the service (db, redis) or the host instead."
        ;;
    esac
done

exec "$@"
