"""The settings of the project, for development."""

from pathlib import Path

DEBUG = True
SECRET_KEY = "insecure-and-for-development-only"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "headrace.django",
    "django.contrib.sessions",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
ROOT_URLCONF = "mysite.urls"
ASGI_APPLICATION = "mysite.asgi.application"
# It is served by uvicorn, and not by runserver.
SILENCED_SYSTEM_CHECKS = ["headrace.I003"]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
    }
]

# In a cookie, so that the example needs no database.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"

# The last messages of each room are kept for whoever joins it.
HISTORY = {"*": {"size": 50, "ttl": 3600}}
CHANNEL_LAYERS = {"default": {"BACKEND": "headrace.layers.InMemoryChannelLayer", "CONFIG": {"history": HISTORY}}}
