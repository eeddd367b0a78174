"""Writes Django's migrations as an Alembic chain, for those who migrate with Alembic."""
