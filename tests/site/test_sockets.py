"""The sockets of the embedded servers lie in /tmp, where any user may put others in their place."""

from __future__ import annotations

import os
import pwd

import pytest

from ketter_site import servers
from tests.site.helpers import root_only
from tests.site.test_env import python

EMBEDDED = (
    "from ketter_site import servers; from django.core.exceptions import ImproperlyConfigured\n"
    "for read in (servers.database_config, servers.redis_url):\n"
    "    try: print(read())\n"
    "    except ImproperlyConfigured as error: print(error)"
)


@pytest.mark.parametrize("planted", ["", "own", "another's", "a link"])
@root_only
def test_no_process_uses_servers_that_another_user_has_put_at_the_sockets(tmp_path, planted):
    """Workers start beside `up`, and outlive it; in /tmp any user may take the name meanwhile."""
    folder = servers.socket_folder(tmp_path)
    if planted == "a link":
        folder.symlink_to(tmp_path)
        os.chown(folder, 65534, 65534, follow_symlinks=False)
    elif planted:
        folder.mkdir()
        os.chown(folder, 65534 if planted == "another's" else 0, 0)
    try:
        said = python(EMBEDDED, KETTER_VAR_DIR=str(tmp_path), DATABASE_URL="", REDIS_URL="").stdout
    finally:
        if planted:
            folder.unlink() if folder.is_symlink() else folder.rmdir()

    refused = 2 if planted in ("another's", "a link") else 0
    assert said.count("belongs to another user (number 65534)") == refused
    assert said.count("django.db.backends.postgresql") + said.count("unix://") == 2 - refused


@root_only
def test_the_embedded_postgres_has_to_run_as_the_owner_of_its_folder(tmp_path):
    (tmp_path / "postgres").mkdir()
    os.chown(tmp_path / "postgres", 65534, 65534)

    said = python(EMBEDDED, KETTER_VAR_DIR=str(tmp_path), DATABASE_URL="", REDIS_URL="").stdout

    assert f"'requirepeer': '{pwd.getpwuid(65534).pw_name}'" in said
