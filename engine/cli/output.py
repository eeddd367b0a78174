"""Output for a person: a closed terminal or a full disk does not end a transfer."""

from __future__ import annotations

import contextlib

#: Around what is only shown. What a user names (`--manifest`) must not fail unseen.
OUTPUT_MAY_FAIL = contextlib.suppress(OSError, ValueError)
