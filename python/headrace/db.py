"""Django's ORM from async code: see ``database_sync_to_async``. Without Django in use nothing here imports it."""

from asgiref.sync import SyncToAsync, sync_to_async

from headrace._db import DatabaseSyncToAsync, aclose_old_connections, database_sync_to_async
from headrace._public import name_publicly as _name_publicly

# Some only because Channels' module has them, and projects import them from there.
__all__ = [
    "DatabaseSyncToAsync",
    "SyncToAsync",
    "aclose_old_connections",
    "database_sync_to_async",
    "sync_to_async",
]

_name_publicly(globals())
