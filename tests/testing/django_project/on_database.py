"""The settings of a project on the database that the environment tells."""

import json
import os

SECRET_KEY = "of a test"
INSTALLED_APPS = [
    *(["headrace.django"] if os.environ["HAS_APP"] else []),
    *("channels", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
]
DATABASES = {"default": json.loads(os.environ["DATABASE"])}
CHANNEL_LAYERS = {"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
LOGGING_CONFIG = None
USE_TZ = True
