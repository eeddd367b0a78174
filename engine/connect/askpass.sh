#!/bin/sh
# What ssh runs to ask for a password (SSH_ASKPASS): the answer waits in a private file.
exec cat "$KETTER_ASKPASS_FILE"
