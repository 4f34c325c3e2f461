"""What Django calls when the app is installed."""

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import register

from headrace.django._checks import check_channel_layers, check_deployment, check_runserver, check_sockets_config
from headrace.django._patch import apply
from headrace.django._sign_out import watch_users

__all__ = ["HeadraceConfig"]


class HeadraceConfig(AppConfig):  # type: ignore[misc]  # Django has no types
    """The app ``headrace.django``."""

    name = "headrace.django"
    label = "headrace"
    verbose_name = "headrace"

    def ready(self) -> None:
        """Register the checks, and do what the settings say: patch Channels, and watch the users."""
        register(check_channel_layers)
        register(check_sockets_config)
        register(check_runserver)
        register(check_deployment, deploy=True)
        watch_users()
        if getattr(settings, "HEADRACE_PATCH_CHANNELS", True):
            apply()
