"""Django's migration auth.0006_require_contenttypes_0002.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "5b870675c28e"
down_revision = "c12fb7a17643"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0011_auth_0006_require_contenttypes_0002",
    app="auth",
    name="0006_require_contenttypes_0002",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
