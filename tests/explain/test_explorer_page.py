"""The explorer in a real browser: its numbers are the model's, by mouse, by keyboard, at any width, light and dark."""

import functools
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnjax import explain, models, nn, ops

selenium = pytest.importorskip("selenium", reason="the explorer is tested with selenium: pip install selenium")
from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="there must be chromium and chromedriver on the path"),
]

SIZES = pytest.mark.parametrize("size", [(1280, 800), (390, 844)], ids=["1280", "390"])
FUNCTIONS = {
    "relu": jax.nn.relu, "relu6": jax.nn.relu6, "tanh": jnp.tanh, "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
}  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    flags = ["headless=new", "no-sandbox", "disable-gpu", "disable-background-networking", "no-first-run"]
    for flag in (*flags, "disable-dev-shm-usage", f"user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a page in the browser; at the end of the test its console must be empty."""

    def opened(page, *, size=(1280, 800), colours="light"):
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        page.save(tmp_path / "page.html")
        chromium.get((tmp_path / "page.html").as_uri())
        return chromium

    yield opened
    assert chromium.get_log("browser") == []
    assert chromium.execute_script("return performance.getEntriesByType('resource').length") == 0


def _picture(*shape, seed=0):
    return jax.random.uniform(jax.random.key(seed), shape)


class Stock(nnx.Module):
    """Every kind of layer that the page can work out, as stock modules, with a softmax inside."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 8, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.grouped = nnx.Conv(8, 8, (3, 3), feature_group_count=4, kernel_dilation=2, rngs=rngs)
        self.up = nnx.ConvTranspose(16, 6, (3, 3), strides=(2, 2), rngs=rngs)
        self.hidden = nnx.Linear(6, 9, rngs=rngs)
        self.out = nnx.Linear(9, 5, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.stem(x)))
        x = x + nnx.gelu(self.grouped(x), approximate=False)
        pools = [pool(x, (2, 2), strides=(2, 2)) for pool in (nnx.max_pool, nnx.avg_pool)]
        x = nnx.tanh(self.up(jnp.concatenate(pools, -1)))
        return nnx.softmax(self.out(nnx.silu(self.hidden(x.mean((1, 2))))))


def _unsettled(model):
    """A model whose batch-norms are neither fresh nor the same for all maps, as after training."""
    for number, (_, leaf) in enumerate(nnx.iter_graph(model)):
        if isinstance(leaf, nnx.BatchStat | nnx.Param) and leaf[...].ndim == 1:
            leaf[...] = jax.random.uniform(jax.random.key(number), leaf.shape, minval=0.5, maxval=1.5)
    return model


MODELS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "lenet": (lambda rngs: models.LeNet(rngs=rngs), (28, 28, 1)),
    "lenet5": (lambda rngs: models.LeNet5(rngs=rngs), (28, 28, 1)),
    "resnet": (lambda rngs: models.ResNet(blocks=(1, 1), widths=(8, 12), stem="cifar", rngs=rngs), (16, 12, 3)),
    "bottleneck": (lambda rngs: models.ResNet(blocks=(1,), bottleneck=True, widths=(4,), rngs=rngs), (32, 32, 3)),
    "mobilenet": (lambda rngs: models.MobileNetV2(width=0.25, num_classes=10, rngs=rngs), (32, 32, 3)),
    "unet": (lambda rngs: models.UNet(rank=2, channels=1, num_classes=3, widths=(4, 6), rngs=rngs), (16, 16, 1)),
    "tcn": (lambda rngs: models.TCN(channels=2, widths=(6, 6, 8), rngs=rngs), (40, 2)),
    "resnet1d": (lambda rngs: models.ResNet1d(blocks=(1, 1), width=8, rngs=rngs), (512, 1)),
    "stock": (Stock, (18, 16, 3)),
}


def _number(text):
    return float(text.replace("\u2212", "-"))


def _shown(browser, *, layer, channel, place):
    """What stands on the page for one number: the sum, what is activated, the scale and shift behind, the value."""
    browser.execute_script("choose(...arguments[0]); move(...arguments[1])", [layer, channel], place)
    find = "return ['sum', 'before', 'value'].map(id => document.getElementById(id)?.textContent ?? null)"
    total, before, value = (text and _number(text) for text in browser.execute_script(find))
    behind = re.search(r", then [^×+−]*( × (?P<scale>[−.\d]+))?( (?P<sign>[+−]) (?P<shift>[.\d]+))?: ", _text(browser))
    scale, sign, shift = behind.group("scale", "sign", "shift") if behind else (None, None, None)
    return total, before, (_number(scale or "1"), _number(f"{sign or ''}{shift or 0}")), value


def _text(browser):
    return browser.execute_script("return document.getElementById('equation').textContent")


@pytest.mark.parametrize("name", MODELS)
def test_works_out_the_numbers_of_the_model(show, name):
    make, shape = MODELS[name]
    model, picture = _unsettled(make(nnx.Rngs(0))), _picture(*shape)
    model.eval()
    browser = show(explain.explorer(model, picture, channels=16))
    wanted = explain.activations(model, picture[None])
    layers = browser.execute_script(
        "return layers.slice(1).map(({ name, shown, activation, how }) => [name, shown, activation, how.kind])"
    )
    assert [layer for layer, *_ in layers] == list(wanted)
    for index, (layer, channels, activation, kind) in enumerate(layers, start=1):
        assert kind != "other", layer
        value = np.asarray(wanted[layer])[0]
        value = value.reshape((1,) * (3 - value.ndim) + value.shape)
        height, width, _ = value.shape
        for channel in {channels[0], channels[-1]}:
            for place in {(0, 0), (height // 2, width // 3), (height - 1, width - 1)}:
                total, before, after, shown = _shown(browser, layer=index, channel=channel, place=place)
                np.testing.assert_allclose(shown, value[*place, channel], rtol=1e-4, atol=1e-4, err_msg=layer)
                if "softmax" in activation:
                    continue
                made = total if before is None else before
                for function in activation:
                    made = FUNCTIONS[function](made)
                made = made * after[0] + after[1]
                np.testing.assert_allclose(made, value[*place, channel], rtol=1e-4, atol=1e-4, err_msg=layer)


def test_layers_that_are_more_than_one_sum_show_their_number(show):
    class Attends(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 8, (3, 3), rngs=rngs)
            self.attend = nnx.MultiHeadAttention(2, 8, decode=False, rngs=rngs)

        def __call__(self, x):
            x = self.conv(x)
            return self.attend(x.reshape(1, -1, 8)).mean(1)

    model, picture = Attends(nnx.Rngs(0)), _picture(6, 6, 1)
    browser = show(explain.explorer(model, picture))
    wanted = model(picture[None])[0]
    last = browser.execute_script("return layers.length - 1")
    for channel in range(8):
        np.testing.assert_allclose(
            _shown(browser, layer=last, channel=channel, place=(0, 0))[-1], wanted[channel], atol=1e-4
        )


def _lenet(**options):
    model = models.LeNet(rngs=nnx.Rngs(3))
    return explain.explorer(model, _picture(28, 28, 1), [f"digit {i}" for i in range(10)], **options)


def _texts(browser, *names):
    return [browser.find_element(By.ID, name).text for name in names]


def _map_button(browser, layer, channel):
    return browser.find_element(By.CSS_SELECTOR, f'button[data-layer="{layer}"][data-channel="{channel}"]')


@SIZES
def test_a_click_chooses_a_map_and_hovering_moves_over_it(show, size):
    browser = show(_lenet(), size=size)
    _map_button(browser, 1, 5).click()
    assert browser.find_element(By.ID, "heading").text.startswith("convs.0 · map 5 · row ")
    assert _map_button(browser, 1, 5).get_attribute("aria-pressed") == "true"
    assert len(browser.find_elements(By.CSS_SELECTOR, '#flow [aria-pressed="true"]')) == 1
    seen = set()
    for dx, dy in [(-0.4, -0.4), (0.0, 0.0), (0.3, -0.2)]:
        frame = browser.find_element(By.CSS_SELECTOR, ".own .frame")
        browser.execute_script("arguments[0].scrollIntoView({ block: 'center' })", frame)
        width, height = frame.size["width"], frame.size["height"]
        ActionChains(browser).move_to_element_with_offset(frame, int(dx * width), int(dy * height)).perform()
        heading, equation = _texts(browser, "heading", "equation")
        row, column = map(int, re.findall(r"row (\d+), column (\d+)", heading)[0])
        rows, columns = browser.execute_script("return layers[1].shape.slice(0, 2)")
        assert abs(row - (0.5 + dy) * rows) <= 1
        assert abs(column - (0.5 + dx) * columns) <= 1
        seen.add((heading, equation))
    assert len(seen) == 3


def test_the_keyboard_does_all_that_the_mouse_does(show):
    browser = show(_lenet())
    press = lambda *keys: ActionChains(browser).send_keys(*keys).perform()  # noqa: E731
    label = "return document.activeElement.ariaLabel"
    press(Keys.TAB)
    assert browser.execute_script(label) == "input, map 0"
    press(Keys.TAB)
    assert browser.execute_script(label) == "convs.0, map 0"
    press(Keys.ARROW_RIGHT, Keys.ARROW_DOWN)
    assert browser.execute_script(label) == "convs.0, map 5"
    press(Keys.ENTER)
    assert _texts(browser, "heading")[0].startswith("convs.0 · map 5")
    while "arrow keys" not in browser.execute_script(label):
        press(Keys.TAB)
    rows = [tuple(map(int, re.findall(r"\d+", _texts(browser, "heading")[0])[-2:]))]
    moves = (Keys.ARROW_UP, Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    for key in (Keys.ARROW_UP,) * 30 + (Keys.ARROW_LEFT,) * 30 + (Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT):
        press(key)
    assert _texts(browser, "heading")[0].endswith("row 1, column 2"), (rows, moves)
    assert "arrow keys" in browser.execute_script(label)


def test_the_products_shown_are_those_of_the_window_and_the_filter(show):
    model, picture = models.LeNet(rngs=nnx.Rngs(3)), _picture(28, 28, 1)
    browser = show(explain.explorer(model, picture))
    browser.execute_script("choose(1, 4); move(7, 9)")
    tables = browser.find_elements(By.CSS_SELECTOR, "#numbers .grid")
    window, kernel, products = (
        np.array([_number(span.get_attribute("title")) for span in grid.find_elements(By.TAG_NAME, "span")])
        for grid in tables
    )
    weights = np.asarray(model.convs[0].kernel[...])[..., 0, 4]
    size = weights.shape[0]
    low = size // 2 if explain.activations(model, picture[None])["convs.0"].shape[1] == 28 else 0
    patch = np.asarray(picture)[7 - low : 7 - low + size, 9 - low : 9 - low + size, 0]
    np.testing.assert_allclose(window, patch.ravel(), atol=1e-5)
    np.testing.assert_allclose(kernel, weights.ravel(), atol=1e-5)
    np.testing.assert_allclose(products, (patch * weights).ravel(), atol=1e-5)


def test_shows_what_a_number_sees_of_the_picture(show):
    model, picture = models.LeNet5(rngs=nnx.Rngs(0)), _picture(28, 28, 1)
    browser = show(explain.explorer(model, picture))
    # By hand: 5 × 5 filters, pools of 2 × 2 with stride 2 between them.
    for index, size in {1: 5, 2: 6, 3: 14, 4: 16}.items():
        browser.execute_script("choose(arguments[0], 0); move(2, 2)", index)
        caption = browser.find_element(By.CSS_SELECTOR, "#figures figcaption").text
        assert caption == f"What it sees of the input: {size} × {size} pixels"


def test_the_softmax_is_worked_out(show):
    model, picture = models.LeNet(rngs=nnx.Rngs(3)), _picture(28, 28, 1)
    names = [f"digit {i}" for i in range(10)]
    browser = show(explain.explorer(model, picture, names))
    model.eval()
    scores = np.asarray(model(picture[None]))[0]
    shares = np.asarray(jax.nn.softmax(scores))
    rows = [row.find_elements(By.TAG_NAME, "td") for row in browser.find_elements(By.CSS_SELECTOR, "#softmax tbody tr")]
    texts = [[cell.text for cell in row] for row in rows]
    order = np.argsort(-scores)
    assert [row[0] for row in texts] == [names[i] for i in order]
    np.testing.assert_allclose([_number(row[1]) for row in texts], scores[order], atol=1e-4)
    powers = [_number(row[2].partition(" = ")[2]) for row in texts]
    np.testing.assert_allclose(powers, np.exp(scores[order] - scores.max()), atol=1e-4)
    assert [row[3] for row in texts] == [f"{100 * share:.1f} %" for share in shares[order]]
    verdict = f"It says {names[order[0]]}, {100 * shares[order[0]]:.1f} % sure"
    assert browser.find_element(By.ID, "verdict").text.startswith(verdict)


@SIZES
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_nothing_overflows_and_everything_is_legible(show, size, colours):
    browser = show(_lenet(), size=size, colours=colours)
    for index in range(browser.execute_script("return layers.length")):
        browser.execute_script("choose(arguments[0], 0)", index)
        # Only the row of layers may be wider than the window: it scrolls by itself.
        wide = """return [...document.querySelectorAll("body > header *, #detail *, #softmax *")].filter((one) => {
            const { left, right } = one.getBoundingClientRect();
            return (left < -1 || right > innerWidth + 1) && !one.closest(".frame, .bars");
        }).map((one) => one.outerHTML.slice(0, 80))"""
        assert browser.execute_script(wide) == [], index
        assert browser.execute_script("return document.documentElement.scrollWidth <= innerWidth"), index
    colour = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    background = browser.execute_script(colour, "body", "backgroundColor")
    inks = [browser.execute_script(colour, one, "color") for one in ("body", ".hint", "output")]
    assert (_luminance(background) > 0.5) == (colours == "light")
    for ink in inks:
        low, high = sorted([_luminance(background), _luminance(ink)])
        # What the Web Content Accessibility Guidelines ask of text, level AA.
        assert (high + 0.05) / (low + 0.05) >= 4.5


def _luminance(colour):
    """Relative luminance of an sRGB colour, as the guidelines define it."""
    levels = np.array(re.findall(r"\d+", colour)[:3], float) / 255
    return np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def test_a_name_that_looks_like_code_stays_a_name(show):
    model = nnx.Sequential(ops.flatten, nn.Dense(4, 2, rngs=nnx.Rngs(0)))
    names = ["</script><b id='broken'>", "<img src=x onerror=alert(1)>"]
    browser = show(explain.explorer(model, jnp.ones((2, 2, 1)), names))
    assert not browser.find_elements(By.ID, "broken")
    assert not browser.find_elements(By.TAG_NAME, "img")
    assert {row.text for row in browser.find_elements(By.CSS_SELECTOR, "#softmax td:first-child")} == set(names)


def test_a_notebook_shows_the_page_in_place(show, tmp_path):
    class Notebook:
        def save(self, path):
            path.write_text(f"<!doctype html><link rel=icon href=data:,>{_lenet()._repr_html_()}", encoding="utf-8")

    browser = show(Notebook())
    browser.switch_to.frame(browser.find_element(By.TAG_NAME, "iframe"))
    browser.execute_script("choose(1, 4); move(7, 9)")
    assert browser.find_element(By.ID, "heading").text == "convs.0 · map 4 · row 7, column 9"
    browser.switch_to.default_content()
