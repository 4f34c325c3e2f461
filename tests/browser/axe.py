"""What axe finds wrong with a page: contrast, labels, names, landmarks."""

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, ViewportSize

PHONE: ViewportSize = {"width": 390, "height": 844}
DESKTOP: ViewportSize = {"width": 1280, "height": 800}


async def faults(page: Page) -> list[str]:
    """Look at a page as it is now on a phone and on a desktop, light and dark; return each fault with its place."""
    found: list[str] = []
    before = page.viewport_size
    for size in (PHONE, DESKTOP):
        await page.set_viewport_size(size)
        if await page.evaluate("() => document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{size['width']}: the page is wider than its window")
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            result = await Axe().run(page)
            found += [
                f"{size['width']} {scheme}: {fault['id']}, {node['html'][:120]}, {node['failureSummary']}"
                for fault in result.response["violations"]
                for node in fault["nodes"]
            ]
    await page.emulate_media(color_scheme="no-preference")
    if before is not None:
        await page.set_viewport_size(before)
    return found
