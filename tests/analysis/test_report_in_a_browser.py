"""The page as a browser shows it: silent, asking nobody, whole in any window, and it answers to pointer and keys."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from a_browser import Browser
from made_up_sweep import write_sweep

from analysis.report import render

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
pytest.importorskip("selenium")

from selenium.webdriver import ActionChains, Keys  # noqa: E402


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    path = folder / "report.html"
    path.write_text(render(write_sweep(folder), "made-up"), "utf-8")
    return path.as_uri()


@pytest.mark.parametrize("width", [320, 390, 700, 1200, 2000])
def test_nothing_is_said_asked_or_cut_off(width: int, browser: Browser, address: str) -> None:
    browser.open(address, width)
    assert browser.asked() == [address]
    assert browser.said() == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    # The chart that is shown fits, and its words are not smaller than 11 pixels.
    shown = [svg for svg in browser.all("svg") if svg.is_displayed()]
    assert len(shown) == len(browser.all("figure.drawing"))
    smallest = browser.run(
        """return Math.min(...[...document.querySelectorAll("svg text")].filter((e) => e.getClientRects().length)
           .map((e) => parseFloat(getComputedStyle(e).fontSize) * e.getScreenCTM().a))"""
    )
    assert smallest > 10 if width == 320 else smallest > 11
    # No word of a chart is outside of it.
    cut = browser.run(
        """return [...document.querySelectorAll("svg text")].filter((e) => e.getClientRects().length).filter((e) => {
             const a = e.getBoundingClientRect(), b = e.ownerSVGElement.getBoundingClientRect();
             return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
           }).map((e) => e.textContent)"""
    )
    assert cut == []


def test_the_figure_that_ranks_is_seen_on_a_phone_and_names_stay(browser: Browser, address: str) -> None:
    """Bits/dim without moving the table; moved to its end, its rows still say whose they are."""
    browser.open(address, 390)
    places = """const row = document.querySelector("#ranking [data-sort]").closest("table").tBodies[0].rows[0];
                return [...row.cells].slice(0, 3).map((e) => e.getBoundingClientRect()).map((e) => [e.left, e.right])"""
    rank, name, bits = browser.run(places)
    assert 0 <= rank[0] < rank[1] <= name[0] + 1 and name[1] <= bits[0] + 1 and bits[1] <= 390
    browser.run("""document.querySelector("#ranking [data-sort]").closest(".scroll").scrollLeft = 9999""")
    _, name, bits = browser.run(places)
    assert bits[1] < 0 <= name[0] < name[1] < 200


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_can_be_read_against_what_is_behind_them(scheme: str, browser: Browser, address: str) -> None:
    """At least 4.5 to 1, as WCAG's level AA asks."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.open(address)
    contrast = browser.run(
        """const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((x) => x / 255)
             .map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
             return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
           const paper = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
             if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255, 255, 255)"; };
           return [...document.querySelectorAll("body *")].filter((e) => e.getClientRects().length
             && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim())).map((e) => {
               const ink = e.ownerSVGElement ? getComputedStyle(e).fill : getComputedStyle(e).color;
               const [a, b] = [light(ink), light(paper(e))].sort((x, y) => y - x);
               return [(a + 0.05) / (b + 0.05), e.textContent.trim().slice(0, 40)]; })
             .reduce((a, b) => (a[0] < b[0] ? a : b))"""
    )
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert contrast[0] >= 4.5, contrast


def column(browser: Browser, number: int) -> list[str]:
    script = """return [...document.querySelectorAll("#ranking tr[data-trial]")]
                .filter((row) => row.closest("table").querySelector("[data-sort]"))
                .map((row) => row.cells[arguments[0]].textContent)"""
    return list(browser.run(script, number))


def test_the_ranking_can_be_sorted_and_comes_back(browser: Browser, address: str) -> None:
    browser.open(address)
    before = column(browser, 1)
    button = browser.one("th[data-sort]:nth-child(2) button")
    button.send_keys(Keys.ENTER)
    assert column(browser, 1) == sorted(before) != before
    assert browser.one("th[data-sort]:nth-child(2)").get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.ENTER)
    assert column(browser, 1) == sorted(before, reverse=True)
    values = browser.one("th[data-sort]:nth-child(3) button")
    assert values.text == "bits/dim"
    values.click()
    numbers = [float(text) for text in column(browser, 2)]
    assert numbers == sorted(numbers)
    browser.one("th[data-sort]:nth-child(1) button").click()
    assert column(browser, 1) == before


def test_handles_keep_the_trials_between_them(browser: Browser, address: str) -> None:
    """With the keyboard; the count is read out, other charts follow, and all come back."""
    browser.open(address)
    assert browser.one("#kept").text == "All 22 trials are kept."
    handles = [h for h in browser.all(".wide .handle") if h.get_attribute("aria-label") == "lr, most"]
    assert len(handles) == 1 and handles[0].get_attribute("role") == "slider"
    value = float(handles[0].get_attribute("aria-valuetext"))
    for _ in range(6):
        handles[0].send_keys(Keys.PAGE_DOWN)
    assert float(handles[0].get_attribute("aria-valuetext")) < value / 3
    ends = {h.get_attribute("aria-label"): h.get_attribute("aria-valuetext") for h in browser.all(".wide .handle")}
    assert ends["num_codes, most"] == "256 codes"  # with its unit, where it has one
    number, unit = ends["bits/dim, least"].split()
    assert float(number) >= 1 and unit == "bits/dim"
    kept = browser.run("""return [...document.querySelectorAll("#parallel .wide path.mark:not(.off)")].length""")
    assert browser.one("#kept").text == f"{kept} of 22 trials are kept." and 0 < kept < 22
    assert len(browser.all("#curves .wide .mark:not(.off)")) == kept + 2  # the failed ones are in no range
    browser.one("#reset").click()
    assert browser.one("#kept").text == "All 22 trials are kept."
    assert not browser.all(".off")


def test_a_handle_can_be_dragged(browser: Browser, address: str) -> None:
    browser.open(address)
    handle = next(h for h in browser.all(".wide .handle") if h.get_attribute("aria-label") == "bits/dim, most")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", handle)
    ActionChains(browser.driver).click_and_hold(handle).move_by_offset(0, 200).release().perform()
    words = browser.one("#kept").text
    assert " of 22 trials are kept." in words
    assert browser.said() == []


def test_the_pointer_is_told_what_a_mark_is(browser: Browser, address: str) -> None:
    browser.open(address)
    assert not browser.one("#tip").is_displayed()
    mark = browser.one("#mattered .wide .mark.best")
    browser.run("arguments[0].scrollIntoView({block: 'center'})", mark)
    ActionChains(browser.driver).move_to_element(mark).perform()
    trial = mark.get_attribute("data-trial")
    assert browser.one("#tip").text.startswith(f"{trial}: ") and "bits/dim at 9,000 images" in browser.one("#tip").text
    hot = browser.run("return [...document.querySelectorAll('.hot')].map((e) => e.dataset.trial)")
    assert len(hot) > 5 and set(hot) == {trial}


def test_all_can_be_reached_with_the_keyboard(browser: Browser, address: str) -> None:
    """By the tab key from the first link to the last, with an outline that is seen."""
    browser.open(address)
    reachable = browser.run(
        """return [...document.querySelectorAll("a[href], button, summary, [tabindex='0']")]
           .filter((e) => e.checkVisibility({contentVisibilityAuto: true})).length"""
    )
    seen = set()
    for _ in range(reachable + 5):
        browser.driver.switch_to.active_element.send_keys(Keys.TAB)
        focus = browser.driver.switch_to.active_element
        if focus.tag_name == "body":
            break
        seen.add(focus.id)
        assert browser.run("return arguments[0].matches(':focus-visible')", focus)
    assert len(seen) == reachable


def test_it_prints(browser: Browser, address: str) -> None:
    browser.open(address, 390)
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert all(chart.is_displayed() for chart in browser.all(".wide svg"))
    assert not any(part.is_displayed() for part in browser.all("nav, .handle, .controls, .narrow svg"))
    folded = "return document.querySelector('#t-settings').checkVisibility({contentVisibilityAuto: true})"
    assert browser.run(folded)  # what is folded up on a screen
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert not browser.run(folded)
    printed = base64.b64decode(browser.driver.print_page())
    assert printed.startswith(b"%PDF") and len(printed) > 20_000


def test_without_scripts_it_says_the_same(browser: Browser, address: str, tmp_path: Path) -> None:
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.open(address)
        assert browser.one("#parallel .wide svg").is_displayed()
        assert not browser.one("#reset").is_displayed()  # nothing that would not work
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
