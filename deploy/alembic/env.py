"""Alembic's entry: connects to DATABASE_URL, or writes the SQL out with `--sql`."""

from logging.config import fileConfig

from alembic import context
from database_url import sqlalchemy_url
from sqlalchemy import create_engine, pool


def run_offline() -> None:
    """Write the SQL to standard output."""
    context.configure(
        dialect_name="postgresql",
        literal_binds=True,
        # Percent signs are written as they are, not doubled for a driver.
        dialect_opts={"paramstyle": "named"},
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    """Migrate the database, each migration in a transaction of its own."""
    engine = create_engine(sqlalchemy_url(), poolclass=pool.NullPool)
    with engine.connect() as connection:
        context.configure(connection=connection, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()


if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)
if context.is_offline_mode():
    run_offline()
else:
    run_online()
