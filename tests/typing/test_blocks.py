"""The blocks of the pages become modules that a type checker can read. That it does: ``make lint``."""

import ast
from pathlib import Path

import pytest
from tests.typing import blocks

PAGE = """
```python
import asyncio

class First: ...
```

Text, and what is no Python:

```console
$ make
```

1. Indented:

   ```python
   await asyncio.sleep(0)
   channel = await channel_layers["default"].new_channel()
   First()
   ```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    monkeypatch.setattr(blocks, "PAGES", [page])
    monkeypatch.setattr(blocks, "FILES", {})
    return page


def test_every_block_of_every_page_is_a_module(tmp_path: Path) -> None:
    written = blocks.write_blocks(tmp_path)
    assert {"readme_13.py"} <= {file.name for file in written}
    assert len(written) == len(set(written)) > 25
    assert "class Chat(" in (tmp_path / "chat.py").read_text()
    for file in written:
        ast.parse(file.read_text())


def test_a_block_imports_what_it_does_not_define_and_waits_in_a_function(page: Path, tmp_path: Path) -> None:
    first, second = blocks.write_blocks(tmp_path)
    assert first.read_text() == "# page.md:2\nimport asyncio\n\nclass First: ...\n"
    assert second.read_text() == (
        "# page.md:16\n"
        "from page_2 import First\n"
        "import asyncio\n"
        "from headrace import channel_layers\n"
        "async def block() -> None:\n"
        "    await asyncio.sleep(0)\n"
        '    channel = await channel_layers["default"].new_channel()\n'
        "    First()\n"
    )


def test_a_name_that_is_nowhere_is_told(page: Path, tmp_path: Path) -> None:
    page.write_text("```python\nnobody_knows()\n```\n")
    with pytest.raises(NameError, match=r"^page\.md:1 uses nobody_knows, which no block before it defines"):
        blocks.write_blocks(tmp_path)
