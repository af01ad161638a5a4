"""The report in a real Chromium: it asks for nothing, says no error, fits a telephone and can be
read in light and dark.
"""

import shutil

import pytest
from report_tiny import whole_run

from qcrd_ray.report import write_report

pytestmark = pytest.mark.browser

# The contrast (WCAG 2) of every text with what is painted behind it; returns what is below 4.5.
CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    throw new Error('nothing is painted behind');
  };
  const found = [];
  for (const node of document.querySelectorAll('body *')) {
    if (![...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim())) continue;
    if (['title', 'desc'].includes(node.tagName)) continue;
    const style = getComputedStyle(node), svg = node.namespaceURI.endsWith('svg');
    const painted = light(parse(svg ? style.fill : style.color));
    const pair = [painted, light(behind(svg ? node.closest('figure, li') : node))];
    const contrast = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    const name = `${node.tagName} ${node.textContent.slice(0, 30)}`;
    if (contrast < 4.5) found.push(`${name}: ${contrast.toFixed(2)}`);
  }
  return found;
}"""
# Lines and marks are no text: 3 is enough.
MARKS = (
    CONTRAST.replace("'body *'", "'svg .mark, svg .bar:not(.hollow)'")
    .replace("4.5", "3")
    .replace("style.fill", "style.color")
)
MARKS = MARKS.replace(
    "![...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim()) || ", ""
)


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    return write_report(whole_run(tmp_path_factory.mktemp("report") / "run"))


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 400)])
def test_the_report_can_be_read(browser, page_file, scheme, width):
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    asked, said = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(page_file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert asked == [page_file.as_uri()], "a report loads nothing"
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(
        "[...document.querySelectorAll('figure > svg')].every(each =>"
        " each.getBoundingClientRect().width > 250)"
    )
    assert len(page.evaluate(CONTRAST.replace("4.5", "22"))) > 100, "the measure sees the texts"
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(MARKS) == []
    assert page.locator("svg[role=img]").count() >= 9
    page.close()


def test_the_report_says_the_same_without_javascript(browser, page_file):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert (
        page.get_by_text("The recipe in brief").is_visible()
        and page.get_by_text("70.0 %").first.is_visible()
    )
    page.locator("nav a", has_text="Examples").click()
    assert page.url.endswith("#examples")
    context.close()


def test_no_label_of_a_chart_is_cut_off(browser, page_file):
    """Bug guarded: a long name that runs out of the drawing, or over the numbers beside it."""
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto(page_file.as_uri())
    outside = page.evaluate(
        """[...document.querySelectorAll('figure svg[role=img]')].flatMap(svg => {
          const box = svg.getBoundingClientRect();
          return [...svg.querySelectorAll('text')].filter(text => {
            const own = text.getBoundingClientRect();
            return own.left < box.left - 1 || own.right > box.right + 1
              || own.top < box.top - 1 || own.bottom > box.bottom + 1;
          }).map(text => text.textContent);
        })"""
    )
    assert outside == []
    page.close()


def test_no_name_of_a_row_is_written_over_its_numbers(browser, page_file):
    """Bug guarded: "judged vote of 8 (no calculator)" is longer than the room beside its share."""
    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto(page_file.as_uri())
    names, over = page.evaluate(
        """[...document.querySelectorAll('figure svg text.name')].reduce(([all, over], name) => {
          const own = name.getBoundingClientRect();
          const beside = [...name.parentElement.querySelectorAll('text')].filter(text => {
            const other = text.getBoundingClientRect();
            return text !== name && other.left < own.right && own.left < other.right
              && other.top < own.bottom && own.top < other.bottom;
          });
          return [all + 1, beside.length ? [...over, name.textContent] : over];
        }, [0, []])"""
    )
    assert names >= 8 and over == []
    page.close()
