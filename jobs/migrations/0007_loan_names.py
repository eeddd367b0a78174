"""Name two fields of a lease as the code does; the columns keep their names, which older workers use."""

from typing import ClassVar

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies: ClassVar = [("jobs", "0006_staging_key")]

    operations: ClassVar = [
        migrations.AlterField("parcellease", "errand", models.TextField(db_column="errand")),
        migrations.RenameField("parcellease", "errand", "loan"),
        migrations.AlterField(
            "parcellease",
            "outcome",
            models.TextField(blank=True, default="", db_column="outcome"),
        ),
        migrations.RenameField("parcellease", "outcome", "result"),
    ]
