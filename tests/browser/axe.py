"""What axe finds wrong with a page: contrast, labels, names, landmarks."""

from collections.abc import Iterable
from typing import Literal

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, ViewportSize

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")
PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}


EVERY = tuple((size, scheme) for size in (PHONE, DESKTOP) for scheme in SCHEMES)
# For what takes long to look at, or cannot wait: both sizes and both schemes, but not each with each.
SOME: tuple[tuple[ViewportSize, Scheme], ...] = ((PHONE, "light"), (DESKTOP, "dark"))


async def faults(
    page: Page, looks: Iterable[tuple[ViewportSize, Scheme]] = EVERY, without: Iterable[str] = ()
) -> list[str]:
    """Look at a page as it is now on a phone and on a desktop, light and dark; return each fault with its place.

    Rules of axe that are in `without` are not looked at.
    """
    found: list[str] = []
    before = page.viewport_size
    options = {"resultTypes": ["violations"], "rules": {rule: {"enabled": False} for rule in without}}
    for size, scheme in looks:
        await page.set_viewport_size(size)
        if await page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{size['width']}: the page is wider than its window")
        await page.emulate_media(color_scheme=scheme)
        result = await Axe().run(page, options=options)
        found += [
            f"{size['width']} {scheme}: {fault['id']}, {node['html'][:120]}, {node['failureSummary']}"
            for fault in result.response["violations"]
            for node in fault["nodes"]
        ]
    await page.emulate_media(color_scheme="no-preference")
    if before is not None:
        await page.set_viewport_size(before)
    return found
