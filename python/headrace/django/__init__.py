"""A Django app: cheap database clean-up for Channels' own consumers, system checks, and ``runworker``.

Add ``"headrace.django"`` to ``INSTALLED_APPS``, before ``"channels"`` if ``manage.py runworker`` is to be headrace's.
With ``HEADRACE_SIGN_OUT = True`` in the settings a sign-out, a changed password and the end of an account end a user's
WebSockets.
With ``HEADRACE_PATCH_CHANNELS = False`` in the settings Channels stays as it is; taking the app out of
``INSTALLED_APPS`` undoes everything.

``join_user`` is for the consumers and socket servers that a sign-out is to end.
"""

from headrace._public import name_publicly as _name_publicly
from headrace.django._user import join_user, join_user_sync

__all__ = ["join_user", "join_user_sync"]

_name_publicly(globals())
