"""The report, opened in a real browser."""

import json
import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def report(dmgd, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    dmgd("distill", "--source", "digits", "--ipc", 2, "--method", "dit", "--steps", 10, "--out", folder / "a<b>&c")
    dmgd(
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
@pytest.mark.parametrize("width", [390, 1200])
def test_the_report_fits_the_window(report, tmp_path, width):
    """The page lies in a frame of a phone's and of a screen's width; nothing sticks out of it, every part is drawn."""
    probe = (
        "<script>addEventListener('load', () => { const d = document, e = d.documentElement;"
        "const broken = [...d.images].filter(i => !i.naturalWidth).length;"
        "d.title = [e.scrollWidth <= innerWidth, broken, d.images.length,"
        "d.querySelectorAll('svg').length, innerWidth].join(' '); });</script></body>"
    )
    page = tmp_path / "probed.html"
    page.write_text((report / "report.html").read_text().replace("</body>", probe))
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    fits, broken, images, charts, inner = re.search(r"<title>(.*?)</title>", shown)[1].split()
    assert (fits, broken, images, charts) == ("true", "0", "10", "3")
    assert int(inner) <= width
