"""Django's migration knox.0005_authtoken_token_key.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "feb33ad7dd11"
down_revision = "72ed468c320a"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0025_knox_0005_authtoken_token_key",
    app="knox",
    name="0005_authtoken_token_key",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
