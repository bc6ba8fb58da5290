"""A real browser that looks at a page: Chromium without a screen."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
# A page of frames, each so wide, with the page that is looked at. It says what they show as JSON.
WATCHER = """<!DOCTYPE html><meta charset="utf-8"><pre id="seen"></pre><script>
const page = %s, widths = %s;
function brief(element) {
  return element.outerHTML.slice(0, 200);
}
function channels(colour) {
  return colour.match(/[\\d.]+/g).map(Number);
}
function luminance(colour) {
  const [r, g, b] = channels(colour).map(
    (one) => (one /= 255) <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function contrast(view, element) {
  const style = view.getComputedStyle(element);
  let behind = element, ground;
  do {
    ground = view.getComputedStyle(behind).backgroundColor;
    behind = behind.parentElement;
  } while (behind && channels(ground)[3] === 0);
  const text = element instanceof view.SVGElement ? style.fill : style.color;
  const [low, high] = [luminance(text), luminance(ground)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}
function seen(frame) {
  const view = frame.contentWindow, root = frame.contentDocument;
  for (const one of root.querySelectorAll("details")) one.open = true;
  const all = [...root.body.querySelectorAll("*")];
  const texts = all.filter((one) => [...one.childNodes].some(
    (node) => node.nodeType === 3 && node.data.trim()));
  const width = root.documentElement.clientWidth;
  const beyond = all.filter((one) => one.getBoundingClientRect().right > width + 0.5);
  return {
    width: width,
    wide: root.documentElement.scrollWidth,
    beyond: beyond.map(brief),
    text: root.body.innerText,
    headings: [...root.querySelectorAll("h1, h2")].map((one) => one.textContent),
    scripts: root.scripts.length,
    plots: [...root.querySelectorAll("svg[role=img][aria-label]")].map((one) => {
      const box = one.getBoundingClientRect();
      return {
        label: one.getAttribute("aria-label"), width: box.width, height: box.height,
        shapes: one.querySelectorAll("path").length,
        text: [...one.querySelectorAll("text")].map((text) => text.textContent),
      };
    }),
    ids: [...root.querySelectorAll("[id]")].map((one) => one.id),
    faint: texts.filter((one) => contrast(view, one) < 4.5).map(brief),
    small: Math.min(...[...root.querySelectorAll("svg text")].map(
      (one) => one.getBoundingClientRect().height)),
    ground: view.getComputedStyle(root.body).backgroundColor,
  };
}
for (const width of widths) {
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${width}px; height: 800px`;
  frame.srcdoc = page;
  document.body.append(frame);
}
window.onload = () => {
  document.getElementById("seen").textContent =
    JSON.stringify([...document.querySelectorAll("iframe")].map(seen));
};
</script>
"""


def browser() -> str:
    """Chromium's path. Without it the test is skipped, but not in CI on Linux."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None and not (os.environ.get("CI") and sys.platform == "linux"):
        pytest.skip("needs Debian's package chromium")
    assert found is not None, "chromium isn't installed: apt-get install chromium"
    return found


def look(page: bytes, widths: Sequence[int], folder: Path, dark: bool = False) -> list[Any]:
    """What Chromium shows of the page at each of these widths, in pixels; all details open."""
    watcher = folder / "watcher.html"
    text = json.dumps(page.decode()).replace("<", "\\u003c")
    watcher.write_text(WATCHER % (text, json.dumps(list(widths))))
    done = subprocess.run(
        [
            browser(),
            "--headless",
            "--no-sandbox",  # which root can't have
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
            f"--user-data-dir={folder / 'chromium'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            "--dump-dom",
            watcher.as_uri(),
        ],
        capture_output=True,
        timeout=120,
    )
    [found] = re.findall(r'<pre id="seen">(.*?)</pre>', done.stdout.decode(), re.DOTALL)
    assert found, done.stderr.decode()
    seen: list[Any] = json.loads(html.unescape(found))
    return seen
