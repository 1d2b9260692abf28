"""Check a built site: its links, that every page is near the front page and fetches nothing, and the browser's console.

``python docs/check_site.py docs/_build/html`` prints each problem on a line, and fails if there is any. The console is
checked if there is a Chromium (``--no-browser`` skips this).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

#: Attributes by which a page fetches something.
FETCHES = {(tag, "src") for tag in ("img", "script", "iframe", "source", "video")} | {("object", "data")}

#: Kinds of <link> that a browser fetches.
FETCHED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}

#: What a style sheet fetches.
CSS_URL = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")

#: What MathJax leaves of a formula that it cannot read: its source, an error, or a command in red.
UNREAD = re.compile(
    r"""(?<=class="math)[^>]*>\s*\\[(\[][^<]*"""
    r"""|(?<=<mjx-merror data-mjx-error=")[^"]*"""
    r"""|mjx-mtext.*?color: red"""
)

#: Maximum number of clicks from the front page to any other page.
CLICKS = 2

#: Pages that need not be near the front page: sources of modules, indexes and the search.
REMOTE = re.compile(r"_modules/.*|(genindex|py-modindex|search)\.html")

#: Pages that are opened in the browser.
OPENED = ("index.html", "theory.html", "api.html", "auto_examples/index.html")


class Page(HTMLParser):
    """Anchors, links and fetched addresses of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self._in_style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self._in_style = tag == "style"
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and FETCHED_LINKS & set(values.get("rel", "").split()):
            self.fetched.append(values.get("href", ""))
        self.fetched += [values[name] for name in values if (tag, name) in FETCHES]
        self.fetched += CSS_URL.findall(values.get("style", ""))
        if "srcset" in values:
            self.fetched += [candidate.split()[0] for candidate in values["srcset"].split(",") if candidate.strip()]

    def handle_data(self, data: str) -> None:
        """Note what a style sheet in the page fetches."""
        if self._in_style:
            self.fetched += CSS_URL.findall(data)


def problems(site: Path) -> list[str]:
    """Return the problems of a site's files."""
    paths = [path for path in sorted(site.rglob("*.html")) if path.relative_to(site).parts[0] != "_static"]
    pages = {path.resolve(): Page(path.read_text(encoding="utf-8")) for path in paths}
    site, found = site.resolve(), []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: {problem}" for link in page.links if (problem := _broken(link, path, pages))]
        found += [f"{name}: {problem}" for url in page.fetched if (problem := _foreign(url, path))]
    for path in sorted(site.rglob("*.css")):
        urls = CSS_URL.findall(path.read_text(encoding="utf-8"))
        found += [f"{path.relative_to(site)}: {problem}" for url in urls if (problem := _foreign(url, path))]
    names = sorted(str(path.relative_to(site)) for path in pages.keys() - _within_clicks(site / "index.html", pages))
    return found + [f"{name}: more than {CLICKS} clicks from index.html" for name in names if not REMOTE.match(name)]


def _within_clicks(start: Path, pages: dict[Path, Page]) -> set[Path]:
    """Return the pages that a reader reaches from a start page with few clicks."""
    near = {start}
    for _ in range(CLICKS):
        near |= {_target(link, path) for path in near & pages.keys() for link in pages[path].links}
    return near


def _target(link: str, path: Path) -> Path:
    """Return the file that a link on a page refers to."""
    linked = unquote(urlsplit(link).path)
    target = (path.parent / linked).resolve() if linked else path
    return target / "index.html" if target.is_dir() else target


def _broken(link: str, path: Path, pages: dict[Path, Page]) -> str | None:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    target = _target(link, path)
    if not target.exists():
        return f"{parts.path} does not exist"
    page = pages.get(target) if parts.fragment else None
    if page is not None and unquote(parts.fragment) not in page.anchors:
        return f"{target.name} has no #{parts.fragment}"
    return None


def _foreign(url: str, path: Path) -> str | None:
    parts = urlsplit(url)
    if parts.scheme == "data" or not (parts.path or parts.netloc):
        return None
    if parts.scheme or parts.netloc:
        return f"fetches {url}"
    return None if (path.parent / unquote(parts.path)).exists() else f"{parts.path} does not exist"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Keep requests out of the output."""


def console(site: Path, browser: str, pages: tuple[str, ...] = OPENED) -> list[str]:
    """Return what the browser's console says when pages are opened; only loopback addresses resolve.

    All messages have the same level, so every message counts, except the theme's notes on light and dark mode.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    found = []
    try:
        for page in pages:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
                command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
                command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
                command += ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={profile}"]
                command += ["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000", "--dump-dom"]
                url = f"http://127.0.0.1:{server.server_port}/{page}"
                run = subprocess.run([*command, url], capture_output=True, text=True, timeout=120, check=False)
            if "</html>" not in run.stdout:
                found.append(f"{page}: the browser showed nothing: {run.stderr[-300:]}")
            found += [f"{page}: MathJax cannot read {formula[:200]}" for formula in UNREAD.findall(run.stdout)]
            said = [line for line in run.stderr.splitlines() if "CONSOLE" in line and '"[PST]: Changed to' not in line]
            found += [f"{page}: console: {line}" for line in said]
    finally:
        server.shutdown()
    return found


def main() -> None:
    """Check the site that is named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("--no-browser", action="store_true")
    arguments = parser.parse_args()
    if not (arguments.site / "index.html").exists():
        sys.exit(f"{arguments.site} holds no index.html: build the site first, make docs.")
    found = problems(arguments.site)
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if browser and not arguments.no_browser:
        found += console(arguments.site, browser)
    print("\n".join(found) or f"{arguments.site}: no problems{'' if browser else ' (no browser was found)'}")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
