"""The table of the counter, and its one row."""

from typing import Any

from django.db import migrations, models


def make_the_counter(apps: Any, schema_editor: Any) -> None:
    """Make the row, at zero."""
    apps.get_model("mysite", "Counter").objects.create()


class Migration(migrations.Migration):
    """The first of the project."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Counter",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("value", models.IntegerField(default=0)),
                ("by", models.CharField(blank=True, max_length=150)),
                ("changes", models.PositiveBigIntegerField(default=0)),
            ],
        ),
        migrations.RunPython(make_the_counter, migrations.RunPython.noop),
    )
