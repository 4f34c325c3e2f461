"""Django's settings for the tests of a project that has none. The forms change them as a user would."""

from pathlib import Path

SECRET_KEY = "tests"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "channels",
]
if Path("tests/models.py").exists():
    INSTALLED_APPS.append("tests")
