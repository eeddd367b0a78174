"""Writes Django's migrations as an Alembic chain, for databases migrated with Alembic."""
