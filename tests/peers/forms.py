"""The steps of docs/how-to/moving-from-channels.md, each as a change of a project's text."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BASELINE", "FORMS", "Form", "Unchanged"]

# Channels' modules that have one of the same name below headrace.
_MOVED = "consumer|db|exceptions|generic|layers|middleware|routing|security|testing|utils|worker"
# Not those of another package (strawberry.channels), and not what is text: a setting is another step.
_MODULE = re.compile(rf"(?<![\w.'\"])channels(?=\.(?:{_MOVED})\b)")
_ROOT = re.compile(r"(?m)^(\s*from )channels(?= import (?!auth\b|sessions\b)\w)|^(\s*import )channels(?=\s*$)")
_APPS = re.compile(r"(INSTALLED_APPS\s*=\s*[(\[])")


class Unchanged(Exception):
    """A form found nothing to change: it would only repeat the baseline."""


def _swap_layer(text: str) -> str:
    return text.replace("channels.layers.InMemoryChannelLayer", "headrace.layers.InMemoryChannelLayer")


def _add_app(text: str) -> str:
    return _APPS.sub(r'\1"headrace.django", ', text)


def _change_imports(text: str) -> str:
    return _MODULE.sub("headrace", _ROOT.sub(lambda match: f"{match[1] or match[2]}headrace", text))


@dataclass(frozen=True)
class Form:
    """A project as it is, or with steps of the migration taken.

    Attributes:
        name: What the table calls it.
        edits: What is done to the text of each file.
    """

    name: str
    edits: tuple[Callable[[str], str], ...] = ()

    def change(self, folder: Path) -> None:
        """Change the Python files of a folder.

        Raises:
            Unchanged: an edit changed none of them.
        """
        files = list(folder.rglob("*.py"))
        for edit in self.edits:
            changed = [_rewrite(path, edit) for path in files]
            if not any(changed):
                raise Unchanged(f"{self.name}: {edit.__name__.strip('_')} changed no file")


def _rewrite(path: Path, edit: Callable[[str], str]) -> bool:
    before = path.read_text(encoding="utf-8")
    after = edit(before)
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


BASELINE = Form("channels")
FORMS = (
    Form("layer", (_swap_layer,)),
    Form("app", (_add_app,)),
    Form("imports", (_change_imports,)),
    Form("all", (_swap_layer, _add_app, _change_imports)),
)
