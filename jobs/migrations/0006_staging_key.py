from django.db import migrations, models

import jobs.models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0005_turn_index"),
    ]

    operations = [
        # Jobs that are there keep the name that their staging folder has.
        migrations.AddField(
            model_name="job",
            name="staging_key",
            field=models.CharField(default="", editable=False, max_length=16),
        ),
        migrations.AlterField(
            model_name="job",
            name="staging_key",
            field=models.CharField(
                default=jobs.models.new_staging_key, editable=False, max_length=16
            ),
        ),
    ]
