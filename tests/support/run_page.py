"""Runs the Python of a page: ``python run_page.py BEFORE PAGE AFTER``, three files, in one module.

What comes before runs without an event loop, as the settings of a project do; the blocks of the page and what comes
after may have ``await`` outside of functions.
"""

import ast
import asyncio
import inspect
import sys
import types
from pathlib import Path

from tests.support.patience import wait_patiently


def compiled(name: str) -> types.CodeType:
    code: types.CodeType = compile(Path(name).read_text(), name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return code


async def main(module: types.ModuleType, names: list[str]) -> None:
    for name in names:
        result = eval(compiled(name), module.__dict__)
        if inspect.isawaitable(result):
            await result


if __name__ == "__main__":
    before, *others = sys.argv[1:]
    wait_patiently()
    # Classes look for the module in which they are.
    page = sys.modules["page"] = types.ModuleType("page")
    exec(compiled(before), page.__dict__)
    asyncio.run(main(page, others))
