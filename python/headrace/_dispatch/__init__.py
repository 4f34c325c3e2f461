"""How messages reach a consumer's handlers: from its client and from its layer, one after the other."""

from headrace._dispatch.counters import ConsumerStats, Counters
from headrace._dispatch.dispatcher import Dispatcher
from headrace._dispatch.failures import log_failure
from headrace._dispatch.handlers import Handlers, get_handler_name
from headrace._dispatch.incoming import Incoming, receives_natively
from headrace._dispatch.present import PresentDispatcher, PresentResumingDispatcher
from headrace._dispatch.resuming import ResumingDispatcher
from headrace._dispatch.session import Session, Shared, SyncSession
from headrace._dispatch.settings import (
    GRACE_SECONDS,
    check_backlog,
    check_grace,
    check_settings,
    forwarded_fields,
    presents_of,
    rate_of,
    setting,
)
from headrace._dispatch.threads import (
    SyncPool,
    call_in_thread,
    current_executor,
    restore_executor,
    sync_pool,
    uses_pool,
)

__all__ = [
    "GRACE_SECONDS",
    "ConsumerStats",
    "Counters",
    "Dispatcher",
    "Handlers",
    "Incoming",
    "PresentDispatcher",
    "PresentResumingDispatcher",
    "ResumingDispatcher",
    "Session",
    "Shared",
    "SyncPool",
    "SyncSession",
    "call_in_thread",
    "check_backlog",
    "check_grace",
    "check_settings",
    "current_executor",
    "forwarded_fields",
    "get_handler_name",
    "log_failure",
    "presents_of",
    "rate_of",
    "receives_natively",
    "restore_executor",
    "setting",
    "sync_pool",
    "uses_pool",
]
