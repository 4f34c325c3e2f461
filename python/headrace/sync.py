"""asgiref's bridges between sync and async code, under the names that Django and Channels users know."""

from asgiref.sync import async_to_sync, sync_to_async

__all__ = ["async_to_sync", "sync_to_async"]
