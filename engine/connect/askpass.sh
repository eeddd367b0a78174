#!/bin/sh
# ssh runs this to ask for a password (SSH_ASKPASS). The password lies in a private file, and beside it
# in `pid` the process that it is for: the ssh to a jump host asks here as well, and gets nothing.
folder=${KETTER_ASKPASS_FILE%/*}
tries=0
until [ -e "$folder/pid" ]; do
    tries=$((tries + 1))
    [ "$tries" -le 50 ] || exit 1
    sleep 0.1
done
[ "$(cat "$folder/pid")" = "$PPID" ] || exit 1
exec cat "$KETTER_ASKPASS_FILE"
