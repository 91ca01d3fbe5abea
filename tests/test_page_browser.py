"""The page in headless Chromium, from a file: what a person does, and what they are shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import xent
from xent import info, page

pytest.importorskip("selenium", reason="no selenium installed")
from selenium import webdriver
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
if not (CHROMIUM and DRIVER):
    pytest.skip("no chromium and chromedriver in PATH", allow_module_level=True)

WORKED = np.array([[2.0, 1.0, 0.1], [0.1, 2.0, 1.9], [1.0, 2.0, 3.0]])
TARGET = np.array([1, 0, -100])


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--lang=en-US",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def shown(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Shown]:
    """The page, opened; at the end nothing must have been complained of."""
    found = Shown(chromium, tmp_path / "xent explore #1.html")
    found.open()
    yield found
    assert chromium.get_log("browser") == []


class Shown:
    """The page as it is shown, and what is done to it."""

    def __init__(self, driver: webdriver.Chrome, file: Path) -> None:
        self.driver, self.file = driver, file

    def open(self, address: str = "", state: str = "") -> None:
        self.file.write_text(page.html(state), "utf-8")
        self.driver.get("about:blank")  # or another address of the same file would not load it
        self.driver.get(self.file.as_uri() + (f"#{address}" if address else ""))

    def __getitem__(self, name: str) -> Any:
        return self.driver.find_element(By.ID, name)

    def value(self, name: str) -> float:
        return float(self[name].get_attribute("data-value"))

    def script(self, code: str, *given: Any) -> Any:
        return self.driver.execute_script(code, *given)

    def slide(self, name: str, value: float) -> None:
        code = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'));"
        self.script(code, self[name], value)

    def type(self, name: str, text: str) -> None:
        self[name].send_keys(Keys.CONTROL, "a")
        self[name].send_keys(text)

    def gradient(self) -> np.ndarray:
        """The numbers at the end of the gradient's bars."""
        code = """
        return [0, 1, 2].map((n) => [...document.querySelectorAll(`[id^="bars-${n}-"]`)]
          .filter((e) => e.tagName === "svg")
          .map((e) => Number([...e.querySelectorAll("text")].at(-1).dataset.value)));
        """
        return np.array(self.script(code))

    def settled(self, wanted: Any) -> None:
        WebDriverWait(self.driver, 10, poll_frequency=0.05).until(lambda _: wanted())

    def hash(self) -> str:
        return self.script("return location.hash.slice(1)")


def loss(logits: Any, target: Any = TARGET, **options: Any) -> tuple[Any, np.ndarray]:
    found, vjp = xent.cross_entropy_vjp(np.array(logits), target, **options)
    return found, vjp(np.ones_like(found))


def test_the_worked_example_is_there(shown: Shown) -> None:
    assert shown["loss"].text == "2.0185"
    assert shown["written"].text == "(1.4170 + 2.6200) / (1 + 1) = 2.0185 nats"
    assert [shown[f"loss-{n}"].text for n in range(3)] == ["loss 1.4170", "loss 2.6200", "ignored"]
    exact, gradient = loss(WORKED)
    assert shown.value("loss") == pytest.approx(exact, rel=1e-12)
    np.testing.assert_allclose(shown.gradient(), gradient, rtol=1e-12)
    assert shown["entropy"].text == "0.7219"
    assert shown.hash() == ""


def test_every_control_changes_the_loss_as_xent_has_it(shown: Shown, rng: Any) -> None:
    logits = WORKED.copy()
    logits[0, 1] = np.round(rng.uniform(-9, 9), 1)
    shown.slide("logit-0-1", logits[0, 1])
    logits[1, 2] = np.round(rng.uniform(-90, 90), 3)
    shown.type("logit-1-2-number", str(logits[1, 2]))
    weight = np.round(rng.uniform(0.1, 5, 3), 1)
    for c, w in enumerate(weight):
        shown.slide(f"weight-{c}", w)
    temperature, smoothing, z_loss = 1.7, 0.23, 0.05
    for name, value in (("temperature", temperature), ("smoothing", smoothing), ("zLoss", z_loss)):
        shown.slide(name, value)
    shown["target-0-2"].click()
    shown["ignore-2"].click()
    options: dict[str, Any] = {"label_smoothing": smoothing, "z_loss": z_loss}
    options |= {"logit_scale": 1 / temperature, "weight": weight}
    for reduction in ("none", "sum", "mean"):
        shown[f"reduction-{reduction}"].click()
        exact, gradient = loss(logits, np.array([2, 0, 2]), reduction=reduction, **options)
        assert shown.value("loss") == pytest.approx(np.sum(exact), rel=1e-12)
        np.testing.assert_allclose(shown.gradient(), gradient, rtol=1e-10, atol=1e-12)


def test_the_bars_are_as_long_as_the_numbers_and_on_their_side(shown: Shown) -> None:
    code = """
    return [...document.querySelectorAll(".line svg")].map((e) => [
      ...["p", "g"].map((name) => e.querySelector(`.${name}`))
        .flatMap((bar) => [bar.getBoundingClientRect().left, bar.getBoundingClientRect().width]),
      e.querySelectorAll(".axis")[1].getBoundingClientRect().left,
      e.getBoundingClientRect().width,
      ...[...e.querySelectorAll("text")].map((text) => Number(text.dataset.value)),
    ]);
    """
    found = np.array(shown.script(code))
    p_left, p_width, g_left, g_width, middle, width, p, g = found.T
    assert len(found) == 9
    np.testing.assert_allclose(p_width / width, p / 4, atol=2e-3)
    assert np.ptp(p_left) < 1
    shares = g_width / width
    np.testing.assert_allclose(shares, np.abs(g) * shares.max() / np.abs(g).max(), atol=2e-3)
    assert shares.max() > 0.1
    right, left = g > 0, g < 0
    np.testing.assert_allclose(g_left[right], middle[right], atol=1)
    np.testing.assert_allclose((g_left + g_width)[left], middle[left], atol=1)
    stack = """
    return ["h", "kl", "ce"].map((name) => document.querySelector(`#stack .${name}`))
      .map((bar) => [bar.getBoundingClientRect().left, bar.getBoundingClientRect().width]);
    """
    (h_left, h), (kl_left, kl), (ce_left, ce) = shown.script(stack)
    assert (h_left, kl_left) == pytest.approx((ce_left, h_left + h), abs=0.5)
    assert h + kl == pytest.approx(ce, abs=0.5)
    assert h / ce == pytest.approx(0.7219, abs=2e-3)


def test_arrow_keys_move_what_has_the_focus(shown: Shown) -> None:
    assert shown.script("return document.activeElement.tagName") == "BODY"
    for key, target, value in ((Keys.ARROW_RIGHT, "logit-0-0", 2.1), (Keys.HOME, "logit-0-1", -10)):
        shown[target].send_keys(key)
        assert shown[target].get_property("valueAsNumber") == pytest.approx(value)
    exact, _ = loss([[2.1, -10, 0.1], *WORKED[1:]])
    assert shown.value("loss") == pytest.approx(exact, rel=1e-12)
    shown["target-0-1"].send_keys(Keys.ARROW_DOWN)
    assert shown["target-0-2"].is_selected()
    shown["ignore-1"].send_keys(Keys.SPACE)
    assert shown["loss-1"].text == "ignored"


def test_every_control_is_reached_by_tab_and_shows_it(shown: Shown) -> None:
    code = "return document.querySelectorAll('button:enabled, select, input, pre').length"
    controls = shown.script(code)
    radios = shown.script(
        "return document.querySelectorAll('input[type=radio]:not(:checked)').length"
    )
    reached = set()
    shown.script("document.querySelector('#language-en').focus()")
    for _ in range(controls - radios):
        reached.add(
            shown.script("return document.activeElement.id || document.activeElement.tagName")
        )
        width = "return getComputedStyle(document.activeElement).outlineWidth"
        assert shown.script(width) == "3px"
        ActionChains(shown.driver).send_keys(Keys.TAB).perform()
    assert len(reached) == controls - radios


def test_steps_descend_and_go_back(shown: Shown) -> None:
    logits = WORKED
    for n in range(1, 4):
        before, gradient = loss(logits)
        logits = logits - gradient
        shown["step"].click()
        assert shown["steps"].text == f"Steps: {n}"
        assert shown.value("loss") < before
    assert shown.value("loss") == pytest.approx(loss(logits)[0], rel=1e-12)
    assert shown["history"].is_displayed()
    told = shown["history-desc"].get_property("textContent")
    assert told == f"3 steps, from 2.0185 to {loss(logits)[0]:.4f} nats"
    shown["back"].click()
    assert shown["loss"].text == "2.0185"
    assert not shown["history"].is_displayed()
    assert shown.script("return document.activeElement.id") == "step"


def test_a_step_that_is_too_long_is_refused(shown: Shown) -> None:
    shown.type("rate-number", "1000")
    shown.type("weight-1-number", "900")
    shown["reduction-sum"].click()
    shown["step"].click()
    assert "That step is too long" in shown.script("return document.body.innerText")
    assert shown["steps"].text == "Steps: 0"
    shown["example"].click()
    assert shown["loss"].text == "2.0185"
    assert shown["rate-number"].get_property("value") == "1"


def test_a_number_that_is_out_of_range_is_marked_and_not_taken(shown: Shown) -> None:
    shown.type("temperature-number", "-1")
    assert shown["temperature-number"].get_attribute("aria-invalid") == "true"
    assert shown["loss"].text == "2.0185"
    shown["step"].send_keys("")  # elsewhere: the number that counts comes back
    shown.script("document.activeElement.blur()")
    assert shown["temperature-number"].get_property("value") == "1"
    assert shown["temperature-number"].get_attribute("aria-invalid") is None


def test_classes_come_and_go(shown: Shown) -> None:
    Select(shown["classes"]).select_by_visible_text("6")
    logits = np.concatenate([WORKED, np.zeros((3, 3))], axis=1)
    assert shown.value("loss") == pytest.approx(loss(logits)[0], rel=1e-12)
    assert shown.script("return document.activeElement.id") == "classes"
    Select(shown["classes"]).select_by_visible_text("3")
    assert shown["loss"].text == "2.0185"


def test_naive_formulas_break_and_stable_ones_do_not(shown: Shown) -> None:
    def numbers(way: str, step: str = "loss") -> list[str]:
        return [shown[f"{name}-{way}-{step}"].text for name in ("fp16", "bf16", "fp32")]

    shown["shift-12"].click()
    assert numbers("naive")[0] == "NaN"
    assert numbers("naive", "sum")[0] == "∞"
    assert numbers("naive")[2] == numbers("stable")[2] == "1.4170"
    assert "broken" in shown["fp16-naive-loss"].get_attribute("class")
    shown["shift-90"].click()
    assert numbers("naive") == ["NaN"] * 3
    assert numbers("stable")[2] == "1.4170"
    shown["shift--110"].click()
    assert numbers("naive", "sum") == ["0.0000"] * 3
    assert shown.script("return document.querySelectorAll('.dot.outside').length") == 9
    shown["shift-0"].click()
    assert shown.script("return document.querySelectorAll('.broken, .dot.outside').length") == 0
    shown.slide("scale", 1.5)
    shown.slide("shift", -3)
    Select(shown["format-row"]).select_by_visible_text("2")
    x = WORKED[1] * 10**1.5 - 3
    told = f"target class 0; in float64 the loss is {xent.cross_entropy(x, 0):.4f}"
    assert told in shown["format-row-told"].text


def test_distributions_are_dragged_and_add_up(shown: Shown, rng: Any) -> None:
    Select(shown["outcomes"]).select_by_visible_text("4")
    shares = rng.integers(50, 900, 2)
    shown.slide("p-2", shares[0] / 1000)
    shown["swap"].click()
    shown.slide("p-3", shares[1] / 1000)

    def distributions() -> tuple[np.ndarray, np.ndarray]:
        p, q = (
            np.array([float(shown[f"{name}-{i}"].get_property("value")) for i in range(4)])
            for name in "pq"
        )
        return p, q

    def agree(base: int | None) -> None:
        p, q = distributions()
        assert p.sum() == pytest.approx(1)
        assert q.sum() == pytest.approx(1)
        measures = (info.entropy(p, base=base), info.cross_entropy(p, q, base=base))
        assert shown.value("entropy") == pytest.approx(float(measures[0]), rel=1e-12)
        assert shown.value("cross") == pytest.approx(float(measures[1]), rel=1e-12)
        total = shown.value("entropy") + shown.value("divergence")
        assert total == pytest.approx(float(measures[1]), rel=1e-12)

    assert distributions()[0][3] == pytest.approx(shares[1] / 1000)
    assert distributions()[1][2] == pytest.approx(shares[0] / 1000)
    shown.slide("q-0", 0.25)
    shown.slide("q-1", 0.25)
    shown.slide("q-3", 0.25)
    agree(2)
    shown["unit-nats"].click()
    agree(None)
    bar = shown["grab-p-0"]
    shown.script("arguments[0].scrollIntoView({ block: 'center' })", bar)
    ActionChains(shown.driver).move_to_element(bar).click_and_hold().move_by_offset(
        0, 40
    ).release().perform()
    centre = bar.rect["height"] / 2
    assert distributions()[0][0] == pytest.approx((166 - centre - 40) / 144, abs=0.02)
    agree(None)


def test_a_model_that_rules_out_what_happens_costs_without_end(shown: Shown) -> None:
    shown.slide("q-0", 0)
    assert [shown[name].text for name in ("entropy", "divergence", "cross")] == ["0.7219", "∞", "∞"]
    assert "the cost is infinite" in shown.script("return document.body.innerText")


def test_the_code_that_is_copied_gives_the_loss(shown: Shown) -> None:
    shown.slide("logit-0-0", -3.5)
    exact, _ = loss([[-3.5, 1, 0.1], *WORKED[1:]])
    for library in ("numpy", "torch"):
        shown[f"copy-{library}"].click()
        shown.settled(lambda: shown["copied"].text == "Copied.")
        code = shown["code"].get_property("textContent")
        assert code.startswith(f"import {library}")
        names: dict[str, Any] = {}
        exec(code, names)
        assert names["loss"].item() == pytest.approx(exact, rel=1e-12)
        # what was copied is pasted into a field that keeps no lines
        shown.script(
            "document.body.append(Object.assign(document.createElement('textarea'), {id: 'x'}))"
        )
        shown["x"].send_keys(Keys.CONTROL, "v")
        assert shown["x"].get_property("value") == code
        shown.script("document.getElementById('x').remove()")


def test_a_refused_copy_selects_the_code(shown: Shown) -> None:
    shown.script("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'))")
    shown.script("document.execCommand = () => false")
    shown["copy-torch"].click()
    shown.settled(lambda: "press Ctrl+C" in shown["copied"].text)
    code = shown["code"].get_property("textContent")
    assert shown.script("return String(getSelection())").strip() == code.strip()


def test_the_address_holds_the_state(shown: Shown) -> None:
    shown.slide("logit-0-0", -3.5)
    shown["target-1-2"].click()
    shown["step"].click()
    shown["unit-nats"].click()
    Select(shown["outcomes"]).select_by_visible_text("3")
    shown.settled(lambda: "p=800,200,0" in shown.hash())
    address, before = shown.hash(), shown.value("loss")
    shown.open(address)
    assert shown.value("loss") == before
    assert shown["unit-nats"].is_selected()
    assert shown["target-1-2"].is_selected()
    shown.script("location.hash = 'temperature=2'")
    shown.settled(lambda: shown["temperature-number"].get_property("value") == "2")
    assert shown.value("loss") == pytest.approx(loss(WORKED, logit_scale=0.5)[0], rel=1e-12)


def test_it_starts_with_what_it_was_made_with_and_the_address_comes_first(shown: Shown) -> None:
    shown.open(state="language=ko&temperature=2")
    assert shown.script("return document.documentElement.lang") == "ko"
    assert shown["temperature-number"].get_property("value") == "2"
    shown["example"].click()
    shown["language-en"].click()
    shown.settled(lambda: shown.hash() == "temperature=1&language=en")
    shown.open(shown.hash(), "language=ko&temperature=2")
    assert shown.script("return document.documentElement.lang") == "en"
    assert shown["temperature-number"].get_property("value") == "1"


def test_the_language_changes_all_but_the_numbers(shown: Shown) -> None:
    shown["step"].click()
    before = shown.value("loss")
    shown["language-ko"].click()
    assert shown.script("return document.documentElement.lang") == "ko"
    assert shown.script("return document.activeElement.id") == "language-ko"
    assert shown["language-ko"].get_attribute("aria-pressed") == "true"
    assert shown["steps"].text == "걸음 수: 1"
    assert shown.value("loss") == before
    shown.settled(lambda: shown["summary"].get_property("textContent").startswith("손실"))
    code = (
        "return [...document.querySelectorAll('h1, h2, h3, legend, label')].map((e) => e.innerText)"
    )
    english = [text for text in shown.script(code) if "class" in text or "Loss" in text]
    assert english == []


def test_changes_are_spoken_once_they_are_over(shown: Shown) -> None:
    shown.slide("logit-0-0", 5)
    exact, _ = loss([[5, 1, 0.1], *WORKED[1:]])
    wanted = f"Loss {exact:.4f} nats. Row 1 "
    shown.settled(lambda: shown["summary"].get_property("textContent").startswith(wanted))
    assert shown["summary"].get_attribute("aria-live") == "polite"


def test_every_control_has_a_name_and_every_figure_is_told(shown: Shown) -> None:
    tree = shown.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"slider", "spinbutton", "button", "radio", "checkbox", "combobox", "img", "image"}
    controls = [node for node in tree if node.get("role", {}).get("value") in roles]
    assert len(controls) > 60
    assert not [node for node in controls if not node.get("name", {}).get("value")]
    code = """
    return [...document.querySelectorAll("svg[role=img]")].map((e) =>
      e.querySelector("title").textContent && e.querySelector("desc").textContent);
    """
    told = shown.script(code)
    assert len(told) == 9 + 5
    assert all(told)
    assert shown["bars-0-1-desc"].get_property("textContent") == (
        "softmax 0.2424, target 1.0000, gradient −0.3788"
    )
    repeated = """
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    return ids.filter((id, i) => ids.indexOf(id) !== i);
    """
    assert shown.script(repeated) == []


CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (e) => {
  for (let at = e; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll("#page *")]
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .filter((e) => !e.disabled && !["title", "desc"].includes(e.tagName))
  .map((e) => {
    const style = getComputedStyle(e);
    const colour = parse(e instanceof SVGElement ? style.fill : style.color);
    const [a, b] = [light(colour), light(behind(e))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), e.textContent.slice(0, 30)];
  })
  .sort((x, y) => x[0] - y[0]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str, shown: Shown) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    shown["shift-90"].click()  # with numbers that are struck out
    found = shown.script(CONTRAST)
    assert len(found) > 150
    assert found[0][0] >= 4.5, found[:3]
    moving = """
    return [...document.querySelectorAll("#page *")]
      .map((e) => getComputedStyle(e).transitionDuration);
    """
    assert set(shown.script(moving)) == {"0s"}
    dark = (
        shown.script("return getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    )
    assert dark == (scheme == "dark")


@pytest.mark.parametrize(
    ("width", "language"), [(400, "en"), (400, "ko"), (900, "en"), (1400, "ko")]
)
def test_nothing_is_wider_than_the_window(width: int, language: str, shown: Shown) -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    shown.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    six = ";".join(["-1000,1000,0.123456,-99.5,7,8"] * 3)
    p = "167,167,167,167,166,166"
    for state in ("", f"logits={six}&p={p}&q={p}&reduction=none&shift=-99999"):
        shown.open(f"{state}&language={language}")
        for _ in range(2):
            shown["step"].click()
        assert shown.script("return innerWidth") == width
        assert shown.script("return document.documentElement.scrollWidth") <= width
        code = """
        return [...document.querySelectorAll("#page *")]
          .filter((e) => !e.closest(".formula, pre") && !e.closest("svg:not([role])"))
          .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
          .map((e) => e.id || e.className || e.tagName);
        """
        assert shown.script(code) == []
    assert shown["loss"].is_displayed()
    shown.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
