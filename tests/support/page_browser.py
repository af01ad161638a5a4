"""What the page's tests need: a headless Chromium, a small real server that answers what a test
wants, and checks by hand.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from qcrd_ray.serving import front_page

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
TASK = {
    "kind": "multiple_choice",
    "to_try": [
        {"question": "Where does a fox live?", "choices": ["a den", "a pond"]},
        {"question": "What is sweet?", "choices": ["honey", "salt"]},
    ],
    "quality": True,
}
ANSWER = {
    "label": "a den",
    "text": "a den",
    "rationale": "A fox digs. So it has a den.",
    "rationale_answer": "a den",
    "quality": 0.75,
}

# Elements with a text of their own whose colour stands out from what lies behind it by less than
# 4.5 : 1 (WCAG 2, AA).
LOW_CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => [r, g, b].map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const color = channels(getComputedStyle(e).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const hasText = (e) => [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  const shown = (e) => e.offsetParent && hasText(e) && !e.closest(".quiet, meter");
  return [...document.body.querySelectorAll("*")].filter(shown).map((e) => {
    const own = luminance(channels(getComputedStyle(e).color));
    const [a, b] = [own, luminance(behind(e))].sort((x, y) => y - x);
    return [e.tagName, e.textContent.slice(0, 40), (a + 0.05) / (b + 0.05)];
  }).filter(([, , ratio]) => ratio < 4.5);
}"""

# Fields without a label, buttons without a name, headings that skip a level, ids that stand twice.
UNNAMED = """() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const unlabelled = all("input, textarea, select, meter")
    .filter((e) => !e.labels?.length && !e.getAttribute("aria-labelledby"));
  const nameless = all("button").filter((e) => !e.textContent.trim());
  const levels = all("h1, h2, h3, h4").filter((e) => e.offsetParent)
    .map((e) => Number(e.tagName[1]));
  const skips = levels.filter((level, i) => level > (levels[i - 1] ?? 0) + 1);
  const ids = all("[id]").map((e) => e.id);
  const twice = ids.filter((id, i) => ids.indexOf(id) !== i);
  const references = ["aria-labelledby", "aria-describedby", "for"];
  const dangling = all("[aria-labelledby], [aria-describedby], label[for]")
    .flatMap((e) => references.map((name) => e.getAttribute(name)))
    .filter((id) => id && !document.getElementById(id));
  const unnamed = [...unlabelled, ...nameless].map((e) => e.id);
  return [...unnamed, ...skips, ...twice, ...dangling];
}"""


@contextmanager
def small_server(
    *, answer=None, status: int = 200, headers=None, key: str | None = None, task=TASK
):
    """A server of the page with one answer to every question; yields (url, what was asked, a
    function that closes it).
    """
    asked: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def reply(self, code, body, kind="application/json", extra=None):
            content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(code)
            for name, value in {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                **(extra or {}),
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def refused(self):
            refused = key is not None and self.headers["Authorization"] != f"Bearer {key}"
            if refused:
                self.reply(
                    401, {"error": {"message": "this endpoint needs its key", "details": []}}
                )
            return refused

        def do_GET(self):
            if self.path == "/":
                html = front_page.PAGE.read_text(encoding="utf-8")
                self.reply(200, html, "text/html; charset=utf-8", front_page.headers(html))
            elif not self.refused():
                self.reply(200, task)

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self.refused():
                asked.append(body)
                self.reply(status, answer or ANSWER, extra=headers)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def close():
        server.shutdown()
        server.server_close()
        thread.join()

    try:
        yield f"http://127.0.0.1:{server.server_port}/", asked, close
    finally:
        if thread.is_alive():
            close()
