"""Django's migration knox.0004_authtoken_expires.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "72ed468c320a"
down_revision = "fb43990a1932"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0024_knox_0004_authtoken_expires",
    app="knox",
    name="0004_authtoken_expires",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
