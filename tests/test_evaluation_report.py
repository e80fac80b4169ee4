"""Reports, opened in a browser: at the width of a screen and of a phone, light and dark."""

import base64
import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser import CHROMIUM, browser_tab

import dmgd
from dmgd.classes.info import ClassInfo
from dmgd.evaluation.comparison import Evaluation, Score, details
from dmgd.evaluation.comparison_table import Comparison
from dmgd.evaluation.examples import Examples, LatentMap, comparison_examples, shown_classes
from dmgd.evaluation.imageset import ImageSet
from dmgd.evaluation.protocols import PROTOCOLS, EvaluateConfig, resolved
from dmgd.evaluation.report import write_bench_report, write_report
from dmgd.evaluation.results import Result, SetFacts
from dmgd.evaluation.train import Training
from dmgd.matching.methods import METHODS
from dmgd.progress import SILENT
from dmgd.sources.open import open_source

SEEN = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")]
NAMES = ("great white shark, man-eater, man-eating shark, Carcharodon carcharias", "<b>&", "日本の猫", "école")
MOST_BYTES = 5_000_000
SECTIONS = {
    "small": "accuracy images learning classes confusion map set-metrics settings",
    "large": "accuracy images learning classes confusion map settings",
    "bench": "accuracy images tables students learning classes confusion settings",
    "real": "accuracy images tables classes confusion map settings",
}
# Of real images, and of every set but the whole.
IMAGES = {"small": 10 * 4, "large": 100 * 4, "bench": 10 * 4, "real": 10 * 5}
CHARTS = {"small": 1 + 1, "large": 2 + 1, "bench": 4, "real": 1}  # of curves, and the map
# What a page looks like; the lowest contrast is that of text with the background that it is on.
PROBE = """(() => {
  const parts = (colour) => (colour.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((value, i) => value * a + under[i] * (1 - a));
  const behind = (one) => {
    if (!one) return [255, 255, 255];
    const colour = parts(getComputedStyle(one).backgroundColor);
    return colour[3] === undefined ? colour : over(colour, behind(one.parentElement));
  };
  const light = (colour) => {
    const [r, g, b] = colour.map((v) => (v / 255 <= 0.04045 ? v / 3294.6 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = { contrast: 21, where: "" };
  for (const one of document.querySelectorAll("body *:not(script, svg *)")) {
    const isText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!isText || !one.checkVisibility()) continue;
    const under = behind(one), own = over(parts(getComputedStyle(one).color), under);
    const [low, high] = [light(own), light(under)].sort((a, b) => a - b), contrast = (high + 0.05) / (low + 0.05);
    if (contrast < worst.contrast) worst = { contrast, where: one.outerHTML.slice(0, 200) };
  }
  const page = document.documentElement, all = (selector) => [...document.querySelectorAll(selector)];
  const drawn = (one) => one.getBBox().width > 1 && one.getBoundingClientRect().width > 200;
  return {
    ...worst,
    width: innerWidth,
    needed: page.scrollWidth,
    paper: getComputedStyle(document.body).backgroundColor,
    broken: all("img").filter((one) => !one.naturalWidth || !one.alt).length,
    images: all("img").length,
    charts: all(".frame > svg").filter(drawn).length,
    sections: all("main > section").map((one) => one.id).join(" "),
  };
})()"""
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def small(inline, tmp_path_factory):
    """The report of an evaluation of digits, as a user makes it."""
    folder = tmp_path_factory.mktemp("report")
    inline("distill", "--source", "digits", "--ipc", 2, "--method", "dit", "--steps", 10, "--out", folder / "a<b>&c")
    inline(
        "evaluate", folder / "a<b>&c", "--epochs", 60, "--repeats", 2, "--against", "random,kmeans-real",
        "--metrics", "--report", folder / "out",
    )  # fmt: skip
    return folder / "out"


def training(seed, accuracies, epochs=50, count=20):
    """A made-up training that ends with these accuracies of the classes, in [0, 1]."""
    classes = len(accuracies)
    confusion = torch.zeros(classes, classes, dtype=torch.int64)
    hits = (torch.tensor(accuracies) * count).round().long()
    for step in (0, 1, 7):  # the diagonal, and two classes that it is taken for
        share = hits if step == 0 else (count - hits) // 2
        confusion[torch.arange(classes), (torch.arange(classes) + step) % classes] += share
    top1 = 100 * float(confusion.diagonal().sum() / confusion.sum())
    curve = tuple((epoch, top1 * (1 - 0.9**epoch), 1 / epoch) for epoch in range(5, epochs + 1, 5))
    return Training(seed, (*curve[:-1], (epochs, top1, 0.1)), confusion, 9.0)


def imagenet_sized(number=1000, size=48):
    """An evaluation of a thousand classes, with random images, and three sets of made-up accuracy."""
    rng = np.random.default_rng(0)
    classes = tuple(ClassInfo(f"{name} {i}") for i, name in zip(range(number), NAMES * number, strict=False))
    level = rng.uniform(0, 0.7, number)
    names = ("runs/in1k", "/data/other", "random", "full")
    trainings = [[training(seed, (level + 0.1 * i).clip(0, 1)) for seed in range(2)] for i in range(len(names))]
    labels = torch.tensor(shown_classes(details(trainings[0])["per_class"])).repeat_interleave(5)
    images = torch.from_numpy(rng.integers(0, 256, (len(labels), 3, size, size), dtype=np.uint8))
    kinds = ("set", "other", "random", "full")
    scores = [Score(name, kind, 5000, tuple(own)) for name, kind, own in zip(names, kinds, trainings, strict=True)]
    sets = [ImageSet(name, images.roll(i, 0), labels, classes) for i, name in enumerate(names[:3])]
    points = rng.normal(size=(len(labels), 2))
    examples = Examples(
        replace(sets[0], name="real"), tuple(sets), map=LatentMap("latents", points, -points, (0.3, 0.1))
    )
    settings = {
        "protocol": {"name": "rded-soft", "network": "resnet-18", "loss": "soft"},
        "parameters": 11_000_000,
        "set": {"name": names[0], "images": 5000, "images_per_class": [5] * number, "method": "dmgd", "prior": "dit"},
        "source": {"name": "imagenet-1k", "variant": None, "test_images": 20 * number},
        "classes": [info.to_json() for info in classes],
        **{"seeds": [0, 1], "device": "cpu", "torch": torch.__version__, "command": "dmgd evaluate runs/in1k"},
    }
    return Evaluation(settings, tuple(scores), {}, tuple(sets), examples, 1.0)


def made_up_comparison():
    """Three methods and all images, of ten classes: two networks, two numbers of images, three seeds."""
    rng, results = np.random.default_rng(0), []
    means = {"dmgd": 0.8, "dit": 0.7, "random": 0.65, "full": 0.98}
    for method, mean in means.items():
        for ipc in (None,) if method == "full" else (1, 10):
            images = 1257 if ipc is None else 10 * ipc
            for network in ("convnet-3", "resnet-18"):
                chosen = replace(PROTOCOLS["quick"], network=network)
                terms = resolved(chosen, num_images=images, num_classes=10, source_size=8)
                for seed in range(3):
                    level = mean - 0.2 * (ipc == 1) - 0.04 * (network == "resnet-18")
                    accuracies = (level + rng.normal(0, 0.05, 10)).clip(0, 1)
                    facts = SetFacts(method, ipc, seed, images, 64 * images, 120 * images, 0, {"sampling": 3.0})
                    results.append(Result(facts, terms, 0, training(seed, accuracies, count=50)))
    source = {"name": "digits", "variant": None, "test_images": 500}
    settings = {"source": source, "prior": {"id": "digits"}, "command": "dmgd bench --source digits", "dmgd": "0.1.0"}
    return Comparison(tuple(results), open_source("digits").classes, settings).to_json()


@pytest.fixture(scope="module")
def reports(small, tmp_path_factory):
    """The pages by name: those of made-up results, and of what the commands write."""
    folder = tmp_path_factory.mktemp("pages")
    write_report(imagenet_sized(), folder / "large")
    result, source = made_up_comparison(), open_source("digits")
    images = torch.randint(0, 256, (100, 1, 8, 8), dtype=torch.uint8)
    data = ImageSet("made", images, torch.arange(100) // 10, source.classes)
    examples = comparison_examples(result, 10, {"dmgd": data, "dit": data, "random": data}, source, SILENT)
    write_bench_report(result, folder / "bench", examples)
    methods = {"short": replace(METHODS["dit"](), steps=2, solver="ddim"), "random": "random"}
    dmgd.bench("digits", out=folder / "real", methods=methods, ipc=(1,), tiles=(1, 2), seeds=2, epochs=1)
    written = {"small": small, **{name: folder / name for name in ("large", "bench", "real")}}
    return {name: path / "report.html" for name, path in written.items()}


def test_a_page_is_self_contained_and_not_too_large(reports):
    for path in reports.values():
        page = path.read_text()
        assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
        assert not re.findall(r"(?i)https?:|@import|url\((?!\$)", page)
        assert len(page.encode()) <= MOST_BYTES
    assert "a&lt;b&gt;&amp;c" in reports["small"].read_text()
    assert "<b>&" not in reports["small"].read_text() + reports["large"].read_text()


def test_the_report_of_an_evaluation_says_what_was_done(small):
    page, result = (small / "report.html").read_text(), json.loads((small / "report.json").read_text())
    assert [s["kind"] for s in result["scores"]] == ["set", "random", "kmeans-real"]
    assert result["metrics"]["random"]["near copies"] == 20
    assert "ior" in result
    assert re.match(r"dmgd evaluate .*/a<b>&c' --epochs 60 ", result["settings"]["command"])
    shown = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert shown["Method"] == "dit"
    assert (shown["Prior"], shown["Images per class"], shown["Seeds"]) == ("digits", "2", "0, 1")
    assert "Date" in shown
    data = re.search(r'download="report.csv" href="data:text/csv;charset=utf-8;base64,([^"]*)"', page)[1]
    table = list(csv.DictReader(io.StringIO(base64.b64decode(data).decode())))
    assert [float(row["top1_mean"]) for row in table] == [score["top1"]["mean"] for score in result["scores"]]


@needs_browser
def test_pages_fit_a_screen_and_a_phone_light_and_dark(reports, tmp_path):
    """Nothing is wider than the page, all images are there, no message is in the console, all text can be read."""
    with browser_tab(tmp_path) as tab:
        for name, path in reports.items():
            papers = set()
            for width, scheme in SEEN:
                tab.open(path, width, scheme)
                seen = tab.evaluate(PROBE)
                assert seen["width"] == width >= seen["needed"], (name, width)
                assert (seen["broken"], tab.errors) == (0, []), (name, width)
                assert seen["contrast"] >= 4.5, (name, width, scheme, seen)
                papers.add(seen["paper"])
            assert len(papers) == 2, name
            assert (seen["sections"], seen["images"]) == (SECTIONS[name], IMAGES[name])
            assert seen["charts"] == CHARTS[name]
            tab.open(path, 718)  # A4 with margins
            tab.call("Emulation.setEmulatedMedia", media="print")
            tab.evaluate("dispatchEvent(new Event('beforeprint'))")
            assert tab.evaluate("document.documentElement.scrollWidth") <= 718, name
            assert tab.evaluate("[...document.querySelectorAll('details')].filter((one) => !one.open).length") == 1


@needs_browser
def test_the_map_shows_images_when_pointed_at_tapped_or_by_arrow_keys(small, tmp_path):
    tip = (
        "(() => { const tip = document.querySelector('.tip'); return [!tip.hidden, tip.textContent, "
        "getComputedStyle(tip.querySelector('i')).backgroundImage.startsWith('url(\"data:image/png')].join(); })()"
    )
    place = """(() => {
      const one = document.querySelector('path.made');
      one.scrollIntoView({ block: 'center', behavior: 'instant' });
      const at = one.getBoundingClientRect();
      return [at.x + at.width / 2, at.y + at.height / 2];
    })()"""
    with browser_tab(tmp_path) as tab:
        tab.open(small / "report.html", 1280)
        x, y = tab.evaluate(place)
        assert tab.evaluate(tip).startswith("false")
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        assert re.fullmatch(r"true,\d, a<b>&c,true", tab.evaluate(tip))
        tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=5, y=5)
        assert tab.evaluate(tip).startswith("false")
        tab.evaluate("document.querySelector('.map .frame').focus()")
        tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
        assert tab.evaluate(tip) == "true,0, real,true"
        tab.open(small / "report.html", 390)
        x, y = tab.evaluate(place)
        tab.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        assert re.fullmatch(r"true,\d, a<b>&c,true", tab.evaluate(tip))
        assert not tab.errors


def test_at_most_a_hundred_classes_are_shown_and_the_page_says_which(reports):
    page = reports["large"].read_text()
    assert "100 of the 1,000 classes are shown" in page
    assert page.count('<div class="class">') == 100
    assert "All 1,000 classes" in page


def test_a_report_in_the_features_of_a_network_needs_no_prior():
    config = EvaluateConfig(against=("random",), metrics=True, report=True)
    assert config.needs_prior
    assert not replace(config, features="efficientnet-lite0").needs_prior
