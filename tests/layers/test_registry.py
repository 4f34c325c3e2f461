"""Which layer an alias stands for: without Django, with it, and together with channels.

What depends on Django's settings runs in an interpreter of its own, because settings are configured
once for a process and this one has none.
"""

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from headrace._layers import registry
from headrace._layers.base import BaseChannelLayer
from headrace._layers.registry import ChannelLayerManager, get_channel_layer
from headrace.exceptions import InvalidChannelLayerError
from headrace.layers import InMemoryChannelLayer

BASE = "headrace._layers.base.BaseChannelLayer"

Run = Callable[..., None]


@pytest.fixture(autouse=True)
def no_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """Django is not in use in this process, whatever the environment of the developer says."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)


@pytest.fixture
def manager() -> ChannelLayerManager:
    return ChannelLayerManager()


@pytest.fixture
def process_manager(monkeypatch: pytest.MonkeyPatch) -> ChannelLayerManager:
    """Put a manager in the place of the process's, for get_channel_layer() and configure()."""
    manager = ChannelLayerManager()
    monkeypatch.setattr(registry, "channel_layers", manager)
    return manager


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run code in an interpreter of its own, in an empty directory on its path."""

    def run(code: str, **environment: str) -> None:
        prelude = f"from headrace._layers.registry import *\nBASE = {BASE!r}\n"
        path = os.pathsep.join([str(tmp_path), *sys.path])
        result = subprocess.run(
            [sys.executable, "-W", "error", "-c", prelude + textwrap.dedent(code)],
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert result.returncode == 0, result.stderr

    return run


class TestWithoutConfiguration:
    def test_default_stands_for_one_in_process_layer(self, process_manager: ChannelLayerManager) -> None:
        layer = get_channel_layer()
        assert type(layer) is InMemoryChannelLayer
        assert get_channel_layer("default") is layer
        assert process_manager.backends == {"default": layer}

    def test_any_other_alias_stands_for_no_layer(self, process_manager: ChannelLayerManager) -> None:
        assert get_channel_layer("other") is None
        assert "default" in process_manager
        assert "other" not in process_manager
        with pytest.raises(KeyError, match="other"):
            process_manager["other"]

    def test_nothing_of_django_or_channels_layers_is_imported(self, run: Run) -> None:
        run("""
            import sys

            assert get_channel_layer() is channel_layers["default"]
            assert not any(name.partition(".")[0] == "django" for name in sys.modules)
            assert "channels.layers" not in sys.modules
        """)

    def test_django_that_is_imported_but_not_configured_is_not_in_use(self, run: Run) -> None:
        run("""
            import django.conf
            import channels.layers

            configure(layers={"default": {"BACKEND": BASE}})
            assert get_channel_layer() is not None
            assert channels.layers.channel_layers.backends == {}
        """)

    def test_a_settings_module_is_not_read_where_django_is_not_installed(self, run: Run) -> None:
        run(
            """
            import sys

            sys.modules["django"] = None
            configure(layers={"default": {"BACKEND": BASE}})
            assert get_channel_layer() is not None
            """,
            DJANGO_SETTINGS_MODULE="settings_that_are_not_there",
        )


class TestConfigure:
    def test_a_backend_is_made_from_its_config_once(self, manager: ChannelLayerManager) -> None:
        manager.configure({"default": {"BACKEND": BASE, "CONFIG": {"capacity": 7}}, "b": layer()})
        made = manager["default"]
        assert isinstance(made, BaseChannelLayer)
        assert made.capacity == 7
        assert manager["default"] is made

    def test_a_layer_stands_for_itself(self, manager: ChannelLayerManager) -> None:
        mine = layer()
        manager.configure({"mine": mine})
        assert manager["mine"] is mine
        assert manager.make_backend("mine") is mine
        assert manager.backends == {"mine": mine}

    def test_default_stands_for_no_layer_unless_it_is_configured(self, process_manager: ChannelLayerManager) -> None:
        registry.configure(layers={"mine": layer()})
        assert get_channel_layer() is None
        assert get_channel_layer("mine") is not None

    def test_it_replaces_what_was_configured_before(self, manager: ChannelLayerManager) -> None:
        manager.configure({"default": {"BACKEND": BASE}, "old": layer()})
        before = manager["default"]
        manager.configure({"default": {"BACKEND": BASE}})
        assert manager.backends == {}
        assert manager["default"] is not before
        assert "old" not in manager

    def test_it_keeps_a_copy_of_what_it_is_given(self, manager: ChannelLayerManager) -> None:
        entry: dict[str, Any] = {"BACKEND": BASE}
        layers: dict[str, Any] = {"default": entry}
        manager.configure(layers)
        layers.clear()
        entry.clear()
        assert isinstance(manager["default"], BaseChannelLayer)

    @pytest.mark.parametrize(
        ("layers", "text"),
        [
            (None, "layers must be a mapping of aliases to channel layers, got None"),
            (["default"], "layers must be a mapping"),
            ({1: {"BACKEND": BASE}}, "an alias must be a non-empty str, got 1"),
            ({"": {"BACKEND": BASE}}, "an alias must be a non-empty str, got ''"),
            ({"a": None}, r"layers\['a'\] must be a channel layer \(an instance\) or a mapping"),
            ({"a": BASE}, r"or a mapping with BACKEND, got 'headrace"),
            ({"a": BaseChannelLayer}, r"\(an instance\) .* got <class"),
            ({"a": {}}, "No BACKEND specified for a"),
            ({"a": {"BACKEND": BaseChannelLayer}}, r"\['BACKEND'\] must be a dotted path \(str\)"),
            ({"a": {"BACKEND": BASE, "config": {}}}, "'a'] has unknown keys: 'config'; expected"),
            ({"a": {"BACKEND": BASE, "ROUTING": "x"}}, "has unknown keys: 'ROUTING'"),
            ({"a": {"BACKEND": BASE, "CONFIG": None}}, "must be a mapping of constructor arg"),
            ({"a": {"BACKEND": BASE, "TEST_CONFIG": [1]}}, r"'TEST_CONFIG'\] must be a mapping"),
        ],
    )
    def test_wrong_input_is_refused_and_changes_nothing(
        self, manager: ChannelLayerManager, layers: Any, text: str
    ) -> None:
        mine = layer()
        manager.configure({"mine": mine})
        with pytest.raises(InvalidChannelLayerError, match=text):
            manager.configure(layers)
        assert manager["mine"] is mine


class TestMaking:
    @pytest.mark.parametrize(
        ("path", "reason"),
        [
            ("nowhere.at_all.Layer", "No module named 'nowhere'"),
            ("headrace._layers.base.Nothing", "module 'headrace._layers.base' has no attribute"),
            ("Layer", "not a dotted path to a class: 'Layer'"),
            (".Layer", "not a dotted path to a class: '.Layer'"),
        ],
    )
    def test_a_backend_that_cannot_be_imported_raises_channels_text_and_the_reason(
        self, manager: ChannelLayerManager, path: str, reason: str
    ) -> None:
        manager.configure({"default": {"BACKEND": path}})
        text = f"^Cannot import BACKEND '{path}' specified for default: {reason}"
        with pytest.raises(InvalidChannelLayerError, match=text) as raised:
            manager["default"]
        assert isinstance(raised.value.__cause__, ImportError)

    @pytest.mark.parametrize("error", [KeyError("host"), ImportError("redis"), TypeError("x")])
    def test_an_error_in_a_backends_constructor_is_never_hidden(
        self,
        process_manager: ChannelLayerManager,
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
    ) -> None:
        def fail(self: BaseChannelLayer) -> None:
            raise error

        monkeypatch.setattr(BaseChannelLayer, "__init__", fail)
        process_manager.configure({"default": {"BACKEND": BASE}})
        for _ in range(2):
            with pytest.raises(type(error)) as raised:
                get_channel_layer()
            assert raised.value is error
        assert process_manager.backends == {}

    def test_make_backend_makes_a_new_layer_each_time(self, manager: ChannelLayerManager) -> None:
        manager.configure({"default": {"BACKEND": BASE, "CONFIG": {"expiry": 5}}})
        made = manager.make_backend("default")
        assert isinstance(made, BaseChannelLayer)
        assert made.expiry == 5
        assert manager.make_backend("default") is not made
        assert manager.backends == {}

    def test_make_backend_of_an_unknown_alias_raises_key_error(self, manager: ChannelLayerManager) -> None:
        with pytest.raises(KeyError, match="other"):
            manager.make_backend("other")

    def test_make_test_backend_uses_test_config_and_keeps_nothing(self, manager: ChannelLayerManager) -> None:
        manager.configure({"default": {"BACKEND": BASE, "TEST_CONFIG": {"expiry": 100500}}})
        made = manager.make_test_backend("default")
        assert isinstance(made, BaseChannelLayer)
        assert made.expiry == 100500
        assert manager.backends == {}

    @pytest.mark.parametrize("alias", ["default", "mine", "other"])
    def test_make_test_backend_without_test_config_raises_channels_text(
        self, manager: ChannelLayerManager, alias: str
    ) -> None:
        manager.configure({"default": {"BACKEND": BASE}, "mine": layer()})
        with pytest.raises(InvalidChannelLayerError, match=f"No TEST_CONFIG specified for {alias}"):
            manager.make_test_backend(alias)

    def test_many_threads_that_ask_at_once_get_one_layer(
        self, manager: ChannelLayerManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = threading.Semaphore(0)
        everybody_asked = threading.Event()
        made = []

        def slow(self: BaseChannelLayer) -> None:
            everybody_asked.wait(30)
            made.append(self)

        def ask() -> object:
            asked.release()
            return manager["default"]

        monkeypatch.setattr(BaseChannelLayer, "__init__", slow)
        manager.configure({"default": {"BACKEND": BASE}})
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask) for _ in range(8)]
            for _ in answers:
                asked.acquire()
            everybody_asked.set()
            found = {id(answer.result()) for answer in answers}
        assert found == {id(layer) for layer in made}
        assert len(made) == 1

    def test_a_constructor_may_ask_for_another_layer(
        self, manager: ChannelLayerManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Wrapper(BaseChannelLayer):
            def __init__(self) -> None:
                self.inner = manager["inner"]

        monkeypatch.setattr("headrace._layers.base.Wrapper", Wrapper, raising=False)
        manager.configure({"outer": {"BACKEND": "headrace._layers.base.Wrapper"}, "inner": {"BACKEND": BASE}})
        outer = manager["outer"]
        assert isinstance(outer, Wrapper)
        assert outer.inner is manager["inner"]


class TestSet:
    def test_it_returns_the_layer_that_was_replaced(self, manager: ChannelLayerManager) -> None:
        manager.configure({"default": {"BACKEND": BASE}})
        first, second = layer(), layer()
        assert manager.set("default", first) is None
        assert manager.set("default", second) is first
        assert manager["default"] is second

    def test_an_alias_that_is_not_configured_can_be_set(self, process_manager: ChannelLayerManager) -> None:
        mine = layer()
        process_manager.set("mine", mine)
        assert get_channel_layer("mine") is mine
        assert "mine" not in process_manager

    def test_backends_can_be_replaced_as_a_whole(self, manager: ChannelLayerManager) -> None:
        manager.configure({"default": {"BACKEND": BASE}})
        before = manager["default"]
        manager.backends = {}
        assert manager["default"] is not before


class TestDjango:
    def test_the_setting_counts_and_a_missing_alias_stands_for_no_layer(self, run: Run) -> None:
        run("""
            from django.conf import settings

            config = {"BACKEND": BASE, "CONFIG": {"capacity": 7}}
            settings.configure(CHANNEL_LAYERS={"chat": config})
            assert channel_layers.configs == {"chat": config}
            assert get_channel_layer() is None
            assert get_channel_layer("chat").capacity == 7
            assert "chat" in channel_layers and "default" not in channel_layers
        """)

    @pytest.mark.parametrize("setting", ["", "CHANNEL_LAYERS={}", "CHANNEL_LAYERS=None"])
    def test_without_the_setting_there_is_no_layer(self, run: Run, setting: str) -> None:
        run(f"""
            from django.conf import settings

            settings.configure({setting})
            assert get_channel_layer() is None
        """)

    def test_a_settings_module_that_is_named_is_loaded(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "named_settings.py").write_text(f"CHANNEL_LAYERS = {{'default': {{'BACKEND': {BASE!r}}}}}")
        run(
            "assert type(get_channel_layer()).__name__ == 'BaseChannelLayer'",
            DJANGO_SETTINGS_MODULE="named_settings",
        )

    def test_a_settings_module_that_fails_is_not_hidden(self, run: Run) -> None:
        run(
            """
            try:
                get_channel_layer()
            except ModuleNotFoundError as error:
                assert error.name == "missing_settings"
            else:
                raise SystemExit("no error")
            """,
            DJANGO_SETTINGS_MODULE="missing_settings",
        )

    @pytest.mark.parametrize(
        ("setting", "text"),
        [
            (
                {"default": {"BACKEND": BASE, "ROUTING": "x"}},
                "ROUTING key found for default - this is no longer needed in Channels 2.",
            ),
            ({"default": {}}, "No BACKEND specified for default"),
            ({"default": {"BACKEND": "no.Layer"}}, "Cannot import BACKEND 'no.Layer' specified"),
            ({"default": {"BACKEND": 5}}, "Cannot import BACKEND 5 specified for default"),
            (
                {"default": {"BACKEND": "headrace.layers.redis.RedisChannelLayer"}},
                "Cannot import BACKEND 'headrace.layers.redis.RedisChannelLayer' specified for default: No module "
                "named 'headrace.layers.redis'; 'headrace.layers' is not a package; write "
                "'headrace.layers.RedisChannelLayer'",
            ),
            ({"default": BASE}, "CHANNEL_LAYERS['default'] must be a mapping with BACKEND"),
            (["default"], "CHANNEL_LAYERS must be a mapping of aliases to mappings, got"),
        ],
    )
    def test_a_wrong_setting_raises_the_error_of_channels(self, run: Run, setting: object, text: str) -> None:
        run(f"""
            from channels.exceptions import InvalidChannelLayerError
            from django.conf import settings

            settings.configure(CHANNEL_LAYERS={setting!r})
            try:
                get_channel_layer()
            except InvalidChannelLayerError as error:
                assert str(error).startswith({text!r}), error
            else:
                raise SystemExit("no error")
        """)

    @pytest.mark.parametrize("with_channels", [True, False])
    def test_a_changed_setting_drops_the_layers(self, run: Run, with_channels: bool) -> None:
        run(f"""
            import sys

            if not {with_channels}:
                sys.modules["channels"] = None
            from django.conf import settings
            from django.test import override_settings

            settings.configure(CHANNEL_LAYERS={{"default": {{"BACKEND": BASE}}}})
            before = get_channel_layer()
            with override_settings(DEBUG=True):
                assert get_channel_layer() is before
            changed = {{"default": {{"BACKEND": BASE, "CONFIG": {{"expiry": 5}}}}}}
            with override_settings(CHANNEL_LAYERS=changed):
                assert channel_layers.backends == {{}}
                assert get_channel_layer().expiry == 5
            assert channel_layers.backends == {{}}
            assert get_channel_layer() is not before
        """)

    def test_a_manager_of_ones_own_follows_the_setting_and_shares_nothing(self, run: Run) -> None:
        run("""
            from django.conf import settings
            from django.test import override_settings

            settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": BASE}})
            manager = ChannelLayerManager()
            assert manager["default"] is not get_channel_layer()
            with override_settings(CHANNEL_LAYERS={}):
                assert manager.backends == {}
                assert "default" not in manager
        """)

    def test_layers_made_before_django_was_configured_are_left_with_a_warning(self, run: Run) -> None:
        run("""
            import warnings
            from django.conf import settings

            early = object()
            channel_layers.set("early", early)
            settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": BASE}})
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                for _ in range(2):
                    assert get_channel_layer("early") is None
            assert [warning.category for warning in caught] == [RuntimeWarning]
            assert "layers ['early'] were made before Django's" in str(caught[0].message)
            assert caught[0].filename == "<string>", caught[0].filename
        """)


class TestDjangoAndConfigure:
    def test_both_are_refused_with_the_one_to_use(self, run: Run) -> None:
        run("""
            from django.conf import settings
            from headrace.exceptions import InvalidChannelLayerError

            settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": BASE}})
            try:
                configure(layers={"default": {"BACKEND": BASE}})
            except InvalidChannelLayerError as error:
                assert "keep CHANNEL_LAYERS" in str(error), error
            else:
                raise SystemExit("no error")
            assert get_channel_layer() is not None
        """)

    def test_a_setting_that_comes_after_configure_is_refused_when_a_layer_is_asked_for(self, run: Run) -> None:
        run("""
            from django.conf import settings
            from headrace.exceptions import InvalidChannelLayerError

            configure(layers={"default": {"BACKEND": BASE}})
            get_channel_layer()
            settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": BASE}})
            for alias in ("default", "other"):
                try:
                    get_channel_layer(alias)
                except InvalidChannelLayerError as error:
                    assert "keep CHANNEL_LAYERS" in str(error), error
                else:
                    raise SystemExit("no error")
        """)

    def test_configure_serves_where_django_has_no_such_setting(self, run: Run) -> None:
        run("""
            import channels.layers
            from django.conf import settings
            from django.test import override_settings

            configure(layers={"default": {"BACKEND": BASE}})
            before = get_channel_layer()
            settings.configure()
            assert get_channel_layer() is before
            with override_settings(CHANNEL_LAYERS={}):
                assert get_channel_layer() is before
            assert channels.layers.channel_layers.backends == {}
        """)


class TestTogetherWithChannels:
    @pytest.mark.parametrize("first", ["channels.layers", "headrace._layers.registry"])
    def test_both_packages_hand_out_the_same_layer(self, run: Run, first: str) -> None:
        run(f"""
            from importlib import import_module
            from django.conf import settings

            settings.configure(CHANNEL_LAYERS={{"default": {{"BACKEND": BASE}}}})
            made = import_module({first!r}).get_channel_layer()
            import channels.layers

            assert channels.layers.get_channel_layer() is made
            assert get_channel_layer() is made
            assert channels.layers.channel_layers.backends is channel_layers.backends
        """)

    def test_a_layer_set_in_one_is_found_in_the_other(self, run: Run) -> None:
        run("""
            import channels.layers
            from django.conf import settings

            settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": BASE}})
            theirs = channels.layers.channel_layers
            one, two = object(), object()
            assert channel_layers.set("default", one) is None
            assert theirs["default"] is one
            assert theirs.set("default", two) is one
            assert channel_layers["default"] is two
            channel_layers.backends = {}
            assert theirs.backends == {}
            assert theirs["default"] is channel_layers["default"]
        """)

    def test_a_changed_setting_resets_both(self, run: Run) -> None:
        run("""
            import channels.layers
            from django.conf import settings
            from django.test import override_settings

            settings.configure(CHANNEL_LAYERS={"default": {"BACKEND": BASE}})
            before = get_channel_layer()
            with override_settings(CHANNEL_LAYERS={"default": {"BACKEND": BASE}}):
                assert channels.layers.channel_layers.backends == {}
                assert channel_layers.backends == {}
                made = channels.layers.get_channel_layer()
                assert made is get_channel_layer() is not before
            assert channels.layers.channel_layers.backends == {}
            assert get_channel_layer() is channels.layers.get_channel_layer() is not made
        """)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this platform")
def test_a_fork_while_a_layer_is_being_made_leaves_the_child_able_to_make_its_own(run: Run) -> None:
    run("""
        import os
        import threading
        import warnings

        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with several threads
        making, forked = threading.Event(), threading.Event()

        def slow():
            if os.getpid() == parent:
                making.set()
                forked.wait(30)
            return object()

        import headrace._layers.base

        parent = os.getpid()
        headrace._layers.base.slow = slow
        configure(layers={"default": {"BACKEND": "headrace._layers.base.slow"}})
        thread = threading.Thread(target=get_channel_layer)
        thread.start()
        making.wait(30)
        child = os.fork()
        if child == 0:
            os._exit(0 if get_channel_layer() is not None else 1)
        _, status = os.waitpid(child, 0)
        forked.set()
        thread.join()
        assert status == 0, status
    """)


def layer() -> Any:
    """Make a layer to be told from others."""
    return BaseChannelLayer()
