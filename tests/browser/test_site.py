"""The documentation as a site: no fault of contrast, label or landmark on a page of each kind."""

from pathlib import Path

import pytest
from playwright.async_api import Browser
from tests.browser.axe import SOME, faults

SITE = Path(__file__).parents[2] / "target/site"
# The start page, a tutorial, a page of tables, a page of the reference of Python.
KINDS = ("index", "tutorials/fastapi-chat", "reference/stats", "reference/api/worker")


async def test_pages_of_each_kind_pass(browser: Browser) -> None:
    if not (SITE / "index.html").is_file():
        pytest.skip("there is no target/site; make site builds it")
    page = await browser.new_page()
    found = {}
    for kind in KINDS:
        await page.goto((SITE / f"{kind}.html").as_uri())
        # The last column of some tables has remarks, and needs no heading.
        found[kind] = await faults(page, SOME, without=("empty-table-header",))
    assert found == {kind: [] for kind in KINDS}
