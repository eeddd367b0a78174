#!/usr/bin/env bash
# Compile requirements/*.in to *.txt: every version exact and with hashes, for
# all systems and Pythons >= 3.11, and without the address of any registry.
# Arguments go to uv (for example: --upgrade, --upgrade-package django).
set -euo pipefail
cd "$(dirname "$0")"

uv="${UV:-uv}"
command -v "$uv" >/dev/null || { echo "compile.sh needs uv: pip install uv" >&2; exit 1; }

for name in base embedded dev; do
    "$uv" pip compile "$name.in" -o "$name.txt" --quiet --universal --generate-hashes \
        --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links "$@"
    if grep -n '://' "$name.txt"; then
        echo "compile.sh: $name.txt names an address" >&2
        exit 1
    fi
done
