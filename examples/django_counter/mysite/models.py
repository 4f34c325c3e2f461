"""The counter, as it is kept in the database."""

from typing import Any

from django.db import models, transaction
from django.db.models import F


class Counter(models.Model):
    """The number that everybody shares: the one row, which the migration makes."""

    value = models.IntegerField(default=0)
    by = models.CharField(max_length=150, blank=True)
    changes = models.PositiveBigIntegerField(default=0)

    @classmethod
    def state(cls) -> dict[str, Any]:
        """Return the value, who changed it last, and how many changes there were."""
        state: dict[str, Any] = cls.objects.values("value", "by", "changes").get()
        return state

    @classmethod
    def change(cls, by: str, value: Any) -> dict[str, Any]:
        """Save a value, or an expression such as ``F("value") + 1``; return the state after it.

        The database adds, so of changes at the same time none is lost. The update comes first in the transaction:
        others wait for its end, and what is then read is what this change has made.

        Two threads may broadcast their states in another order than the changes had. ``changes`` only grows, so the
        page knows the newer one.
        """
        with transaction.atomic():
            cls.objects.update(value=value, by=by, changes=F("changes") + 1)
            return cls.state()
