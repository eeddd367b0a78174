"""DATABASE_URL in the forms that Ketter's settings take, as a URL for SQLAlchemy."""

import os
from urllib.parse import unquote, urlsplit

from sqlalchemy import URL, make_url

DRIVER = "postgresql+psycopg"


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
    return _with_socket(make_url(DRIVER + text.removeprefix(scheme)))


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
