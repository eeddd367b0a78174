"""Django's migration knox.0008_remove_authtoken_salt.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "4214b5caf64c"
down_revision = "7a58b4519790"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0028_knox_0008_remove_authtoken_salt",
    app="knox",
    name="0008_remove_authtoken_salt",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
