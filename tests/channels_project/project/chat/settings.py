"""Settings of a project that swaps its channel layer by changing one line."""

import json
import os

SECRET_KEY = "of a project that keeps no secrets"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "chat.urls"
ASGI_APPLICATION = "chat.asgi.application"
INSTALLED_APPS = [
    "channels",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
USE_TZ = True

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": os.environ["CHAT_BACKEND"],
        "CONFIG": json.loads(os.environ.get("CHAT_CONFIG", "{}")),
    }
}
