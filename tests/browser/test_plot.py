"""The plot of the comparison: nothing that is written on it covers anything else."""

from pathlib import Path

from benches.compare import consumers
from benches.compare.fanout import CHANNELS, FUTURES, RECEIVE
from benches.compare.plot import plot
from benches.compare.rows import Row, Spread
from playwright.async_api import Browser

RESULTS = Path(__file__).parents[2] / "benches/results"

COLLISIONS = """() => {
    const box = (part) => part.getBoundingClientRect();
    const apart = (a, b) => a.right <= b.left || b.right <= a.left || a.bottom <= b.top || b.bottom <= a.top;
    const texts = [...document.querySelectorAll("text")];
    const found = [];
    for (const [number, text] of texts.entries()) {
        const here = box(text);
        const card = box(text.parentNode.querySelector(".card"));
        if (here.left < card.left + 8 || here.right > card.right - 8) found.push(`${text.textContent} leaves its card`);
        for (const other of texts.slice(number + 1))
            if (!apart(here, box(other))) found.push(`${text.textContent} covers ${other.textContent}`);
        for (const dot of text.parentNode.querySelectorAll("circle"))
            if (!apart(here, box(dot))) found.push(`${text.textContent} covers a dot`);
        for (const curve of text.parentNode.querySelectorAll("polyline")) {
            const length = curve.getTotalLength(), to = curve.getScreenCTM();
            for (let at = 0; at <= length; at += 2) {
                const { x, y } = curve.getPointAtLength(at).matrixTransform(to);
                if (x > here.left && x < here.right && y > here.top && y < here.bottom) {
                    found.push(`${text.textContent} lies on a curve`);
                    break;
                }
            }
        }
    }
    return found;
}"""


def rows(ours: float, futures: float, channels: float) -> list[Row]:
    """Make what the plot draws, with these nanoseconds whatever the size."""
    sizes = (10, 100, 1000, 10_000)
    cost = Spread.exactly(ours)
    beside = ((CHANNELS, channels), (FUTURES, futures))
    tasks = [
        Row("", "asyncio", cost, versus=versus, theirs=theirs, variant=RECEIVE, members=size)
        for versus, theirs in beside
        for size in sizes
    ]
    handlers = [
        Row("", "asyncio", spread, versus=CHANNELS, theirs=channels, variant=consumers.PREFIX + way, members=size)
        for way, spread in ((consumers.OURS, cost), (consumers.WITH_APP, Spread.exactly(futures)))
        for size in sizes
    ]
    return [*tasks, *handlers]


async def collisions(browser: Browser, picture: str) -> list[str]:
    page = await browser.new_page()
    await page.set_content(picture)
    assert await page.locator("text.label").count() >= 6
    found: list[str] = await page.evaluate(COLLISIONS)
    return found


async def test_nothing_covers_anything_in_the_picture_of_the_readme(browser: Browser) -> None:
    assert await collisions(browser, (RESULTS / "fanout.svg").read_text()) == []


async def test_nothing_covers_anything_where_curves_end_alike(browser: Browser) -> None:
    for costs in ((1000, 1000, 1000), (999, 1001, 1_000_000), (900, 1e6, 1e6), (1e7, 1.1e7, 900)):
        assert await collisions(browser, plot(rows(*costs))) == [], costs
