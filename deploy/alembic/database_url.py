"""DATABASE_URL in the forms that Ketter's settings take, as a URL for SQLAlchemy."""

import os
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, make_url

DRIVER = "postgresql+psycopg"

#: As in Ketter's settings: a host that is silent is given up within seconds, not after minutes.
#: In libpq's words and units (s, ms for the last); each can be set in DATABASE_URL.
PATIENCE = {
    "connect_timeout": "4",
    "keepalives": "1",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "12000",
}


def sqlalchemy_url(given: str | None = None) -> URL:
    """The database to migrate; by default that of the environment variable DATABASE_URL.

    A folder of a Unix socket may stand in the query (`postgresql:///ketter?host=/run/pg`),
    percent-encoded in the place of the host (`postgresql://%2Frun%2Fpg/ketter`), or as
    a path before the name (`postgres:////run/pg/ketter`).
    """
    text = (os.environ.get("DATABASE_URL", "") if given is None else given).strip()
    scheme = urlsplit(text).scheme
    if not text:
        raise SystemExit("DATABASE_URL is not set: postgresql://user:password@host:5432/ketter")
    if scheme not in {"postgres", "postgresql", DRIVER}:
        raise SystemExit(
            f"DATABASE_URL begins with {scheme!r}, but Ketter's schema is for PostgreSQL only."
        )
    return _with_patience(_with_socket(make_url(DRIVER + text.removeprefix(scheme))))


def _with_patience(url: URL) -> URL:
    """The same, with limits for a host that is behind a network."""
    named = url.query.get("host") or url.host or ""
    hosts = named.split(",") if isinstance(named, str) else named
    if not any(host and not host.startswith(("/", "@")) for host in hosts):
        return url
    return url.update_query_dict({**PATIENCE, **url.query})


def _with_socket(url: URL) -> URL:
    host, database = url.host or "", url.database or ""
    if host.lower().startswith("%2f"):
        folder = unquote(host)
    elif database.startswith("/"):
        folder, _, database = database.rpartition("/")
    else:
        return url
    # SQLAlchemy and libpq take a socket's folder as a query parameter.
    query = {**url.query, "host": folder}
    return URL.create(DRIVER, url.username, url.password, None, url.port, database, query)
