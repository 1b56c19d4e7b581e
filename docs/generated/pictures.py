"""All pictures of the documentation that show the program, made again by the program: `make pictures`.

A demo run, a pair of phantom sections in two stains, and Chromium in front of the report and the viewer. What is drawn
from tables (`hashi.png`, `memory.png`, `tiles_and_time.png`) belongs to the benchmarks.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

from docs.generated.stages import draw_stages
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from tests.tissue_slides import write_tissue
from tests.turned import turned
from tests.viewed_runs import serving

from he2her2.geometry import Point
from he2her2.phantom import make_spec, write_phantom
from he2her2.slides import open_slide

DOCS = Path(__file__).resolve().parents[1]
VIEWER, REPORT = {"width": 1280, "height": 780}, {"width": 1180, "height": 1500}
CHROMIUM = "/usr/bin/chromium"
TURN = 28.0
QUALITY = 86


def main() -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("pictures-run"), help="folder for the runs; what is there is kept"
    )
    parser.add_argument("--chromium", default=CHROMIUM, help="the browser")
    asked = parser.parse_args()
    demo, pair = asked.work / "demo-run", asked.work / "two-stains"
    if not (demo / "report").is_dir():
        he2her2("demo", "--out", demo)
    if not (pair / "run").is_dir():
        write_pair(pair)
    draw_stages(demo, "phantom", DOCS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=asked.chromium, args=["--no-sandbox"])
        report(browser, demo)
        with serving(demo) as url:
            photograph(browser, url, "viewer.jpg", open_strip)
            photograph(browser, url, "viewer-tile.jpg", open_tile)
        with serving(pair / "run", "--manifest", pair / "manifest.csv") as url:
            photograph(browser, f"{url}#slide=section-HE", "viewer-pair.jpg", open_pair, scheme="dark")
        browser.close()


def he2her2(*words: object) -> None:
    """Run a command of the program."""
    subprocess.run([sys.executable, "-m", "he2her2", *map(str, words)], check=True)  # noqa: S603


def write_pair(folder: Path) -> None:
    """An H&E phantom and its IHC section, which lies turned; predicted."""
    folder.mkdir(parents=True)
    rows = ["slide_id,path,patient_id,stain"]
    for stain in ("HE", "IHC"):
        size = (6400, 6400)
        path = folder / f"section-{stain}.tif"
        write_phantom(
            path, make_spec(seed=12, stain=stain, ihc_score="3+", signal=1.0, size_px=size, foci=2), workers=1
        )
        rows.append(f"section-{stain},section-{stain}.{'tif' if stain == 'HE' else 'svs'},P1,{stain}")
        if stain == "IHC":
            with open_slide(path) as slide:
                pixels = slide.read(Point(0, 0), slide.size_l0, slide.mpp)
            write_tissue(path.with_suffix(".svs"), turned(pixels, TURN)[0])
            path.unlink()
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    he2her2("predict", folder / "manifest.csv", "--out", folder / "run", "--workers", "0")


def report(browser: Browser, run: Path) -> None:
    """The head of the demo's report."""
    page = browser.new_page(viewport=REPORT)  # type: ignore[arg-type]
    page.goto((run / "report" / "cases" / "phantom.html").resolve().as_uri())
    page.wait_for_timeout(500)
    keep(page, "report.jpg")


def photograph(browser: Browser, url: str, name: str, act: Callable[[Page], None], scheme: str = "light") -> None:
    """A picture of the viewer after an act."""
    page = browser.new_page(viewport=VIEWER, color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(url)
    page.wait_for_selector("body[data-ready]")
    act(page)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(1500)
    keep(page, name)


def keep(page: Page, name: str) -> None:
    """Picture of the page, as a JPEG of the docs."""
    Image.open(BytesIO(page.screenshot())).convert("RGB").save(DOCS / name, quality=QUALITY)
    page.close()


def open_strip(page: Page) -> None:
    """The whole slide, with the strip of deciding tiles, as it opens."""
    page.wait_for_selector("#film img")


def open_tile(page: Page) -> None:
    """The third of the deciding tiles."""
    for _ in range(3):
        page.keyboard.press("n")
        page.wait_for_timeout(700)


def open_pair(page: Page) -> None:
    """IHC beside H&E, and a region around the tumour."""
    page.keyboard.press("i")
    page.wait_for_function("() => document.getElementById('pair-said').textContent")
    page.wait_for_timeout(800)
    page.keyboard.press("d")
    box = page.locator("#picture-main").bounding_box()
    assert box is not None
    for x, y in ((0.42, 0.36), (0.66, 0.34), (0.72, 0.56), (0.56, 0.66), (0.4, 0.56)):
        page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        page.wait_for_timeout(400)
    page.keyboard.press("Enter")
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 0.42 * box["height"])


if __name__ == "__main__":
    main()
