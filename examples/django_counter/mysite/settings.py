"""The settings of the project, for development."""

from pathlib import Path

DEBUG = True
SECRET_KEY = "insecure-and-for-development-only"
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

INSTALLED_APPS = [
    "mysite",
    "headrace.django",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "mysite.urls"
ASGI_APPLICATION = "mysite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "OPTIONS": {"context_processors": ["django.contrib.auth.context_processors.auth"]},
    }
]

DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(__file__).parents[1] / "db.sqlite3",
        # One writes at a time; the others wait for so many seconds.
        "OPTIONS": {"timeout": 20},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "page"
LOGOUT_REDIRECT_URL = "login"

# Who signs out in one window is closed in the others.
HEADRACE_SIGN_OUT = True

# There are socket servers alone, which need no channel layer, and uvicorn serves them.
SILENCED_SYSTEM_CHECKS = ["headrace.W001", "headrace.I003"]

# One process needs nothing here. Several broadcast to each other through a Redis or Valkey server:
# DJANGO_SOCKETS_CONFIG = {"hosts": [{"address": "redis://localhost:6379"}]}
