"""Django's migration admin.0003_logentry_add_action_flag_choices.

Made by `manage.py export_alembic`; do not edit.
"""

from runner import Migration

revision = "ea2cc5b4430d"
down_revision = "bdf8a974f9a4"
branch_labels = None
depends_on = None

MIGRATION = Migration(
    stem="0005_admin_0003_logentry_add_action_flag_choices",
    app="admin",
    name="0003_logentry_add_action_flag_choices",
    atomic=True,
    reversible=True,
)

upgrade = MIGRATION.up
downgrade = MIGRATION.down
