"""The report, opened in a browser."""

import json
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(inline, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    inline("distill", "--source", "digits", "--ipc", 2, "--method", "dit", "--steps", 10, "--out", folder / "a<b>&c")
    inline(
        "evaluate", folder / "a<b>&c", "--epochs", 3, "--repeats", 2, "--against", "random,kmeans-real,full",
        "--metrics", "--report", folder / "out",
    )  # fmt: skip
    return folder / "out"


def test_the_report_is_whole_and_self_contained(report):
    page, result = (report / "report.html").read_text(), json.loads((report / "report.json").read_text())
    assert [s["kind"] for s in result["scores"]] == ["set", "random", "kmeans-real", "full"]
    assert result["metrics"]["random"]["near copies"] == 20
    assert {"hlr", "ior"} <= result.keys()
    assert "a&lt;b&gt;&amp;c" in page
    assert "<b>&c" not in page
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "http" not in page


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine (apt-get install chromium)")
def test_the_report_fits_a_phone_and_a_screen(report, tmp_path):
    """In frames of both widths nothing overflows the page, and every image and chart is drawn."""
    probe = (
        "<script>addEventListener('load', () => { const d = document, e = d.documentElement;"
        "const broken = [...d.images].filter(i => !i.naturalWidth).length;"
        "parent.postMessage([innerWidth, e.scrollWidth <= innerWidth, broken, d.images.length,"
        "d.querySelectorAll('svg').length].join(' '), '*'); });</script></body>"
    )
    (tmp_path / "probed.html").write_text((report / "report.html").read_text().replace("</body>", probe))
    frames = "".join(
        f'<iframe src="probed.html" width="{w}" height="800" frameborder="0"></iframe>' for w in (390, 1200)
    )
    listen = "<script>addEventListener('message', e => document.body.append('[' + e.data + ']'));</script>"
    page = tmp_path / "frames.html"
    page.write_text(f"<!doctype html><body>{listen}{frames}</body>")
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    assert sorted(re.findall(r"\[(\d+ [\w ]+)\]", shown)) == ["1200 true 0 10 3", "390 true 0 10 3"]
