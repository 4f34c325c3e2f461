"""``manage.py demo_users``: somebody to log in as, for development."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

PASSWORD = "for-development-only"


class Command(BaseCommand):
    """Creates the users that the README names, or gives them their password back."""

    help = "Create ada, and grace who is staff, with a password that everybody can read; refused without DEBUG."

    def handle(self, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("the password of these users is public, so they are created only where DEBUG is True")
        for name, is_staff in (("ada", False), ("grace", True)):
            user, _ = get_user_model().objects.get_or_create(username=name)
            user.is_staff = is_staff
            user.set_password(PASSWORD)
            user.save()
        self.stdout.write(f"ada, and grace who is staff, log in with the password {PASSWORD}")
