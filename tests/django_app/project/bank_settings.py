"""Settings of a project with channels and the app, varied by the environment."""

import json
import os

SECRET_KEY = "of a project that keeps no secrets"
INSTALLED_APPS = [
    *json.loads(os.environ.get("BANK_APPS", '["headrace.django", "channels"]')),
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "rest_framework",
    "rest_framework.authtoken",
]
DATABASES = {
    name: {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["BANK_DATABASE"]} for name in ("default", "other")
}
CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
CHANNEL_LAYERS = json.loads(
    os.environ.get("BANK_LAYERS", '{"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}')
)
ASGI_APPLICATION = "bank_asgi.application"
HEADRACE_PATCH_CHANNELS = json.loads(os.environ.get("BANK_PATCH", "true"))
HEADRACE_SIGN_OUT = json.loads(os.environ.get("BANK_SIGN_OUT", "false"))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
