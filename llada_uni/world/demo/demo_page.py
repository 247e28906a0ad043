"""The page of the demonstration: results in, one HTML file out, with pictures embedded and nothing fetched
from elsewhere.

What flows through: the results of llada_uni/world/demo/demo.py (plain JSON) and the folder of its pictures -> HTML.
Every word of the model and of the user is escaped.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path
from typing import Any

STYLE = """
:root { --paper: #faf8f4; --card: #fff; --ink: #22252b; --soft: #6d7380; --line: #e6e2da;
  --accent: #c2410c; --wash: #f3efe7 }
@media (prefers-color-scheme: dark) { :root { --paper: #15171b; --card: #1e2126; --ink: #eceae6;
  --soft: #9aa0ac; --line: #30343b; --accent: #c2570c; --wash: #262a30 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, Roboto, sans-serif }
main, header, footer { max-width: 1168px; margin: 0 auto; padding: 0 24px }
header { padding-top: 56px }
h1 { font-size: clamp(30px, 5vw, 46px); line-height: 1.1; letter-spacing: -.02em; margin: 0 0 12px }
h2 { font-size: 25px; letter-spacing: -.01em; margin: 56px 0 4px }
.lead { font-size: 19px; color: var(--soft); max-width: 44em; margin: 0 0 18px }
.note { color: var(--soft); margin: 0 0 18px; max-width: 60em }
.facts { display: flex; flex-wrap: wrap; gap: 8px; padding: 0; margin: 0; list-style: none }
.facts li { background: var(--wash); border-radius: 99px; padding: 3px 13px; font-size: 14px }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(240px, 1fr)); gap: 22px }
.twos { grid-template-columns: repeat(auto-fill, minmax(min(100%, 430px), 1fr)) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden }
img { display: block; width: 100%; height: auto; image-rendering: auto; background: var(--wash) }
.words { padding: 14px 16px 16px }
.prompt { font-weight: 600; margin: 0 0 6px }
.thought { margin: 0 0 8px; padding: 7px 11px; border-left: 3px solid var(--accent);
  background: var(--wash); border-radius: 0 8px 8px 0 }
.reads { margin: 0 0 6px; font-size: 14px }
.unseen { margin: 0 0 6px; font-size: 14px; color: var(--accent) }
.meta { margin: 0; font-size: 13px; color: var(--soft) }
.pair { display: grid; grid-template-columns: 1fr 28px 1fr; align-items: center }
.three { grid-template-columns: 1fr 28px 1fr 28px 1fr }
.pair b { text-align: center; color: var(--soft); font-weight: 400 }
.ask { display: grid; grid-template-columns: minmax(150px, 260px) 1fr; align-items: start }
.bubbles { padding: 18px; display: flex; flex-direction: column; gap: 6px }
.bubbles p { margin: 0; padding: 7px 14px; border-radius: 16px; max-width: 85% }
.q { align-self: flex-end; background: var(--accent); color: #fff }
.a { align-self: flex-start; background: var(--wash) }
.frames { display: grid; grid-template-columns: repeat(auto-fill, minmax(210px, 1fr)); gap: 18px;
  margin-bottom: 12px }
figure { margin: 0 }
figure img { border-radius: 12px; border: 1px solid var(--line) }
figcaption { padding: 9px 3px 0 }
figcaption small { display: block; color: var(--soft) }
pre { background: var(--wash); border-radius: 12px; padding: 16px 18px; overflow: auto;
  font: 14px/1.6 ui-monospace, Menlo, Consolas, monospace }
footer { margin-top: 56px; padding-bottom: 56px; color: var(--soft); font-size: 14px }
a { color: var(--accent) }
"""

GO_ON = """
llada-uni generate "a flat panda at the top right and a flat guitar at the bottom left" -o panda.png
llada-uni understand panda.png -q "what is at the bottom left?"
llada-uni edit panda.png -i "replace the guitar with a cake" -o cake.png
llada-uni story "a story about zoe the lion and max the bee in 3d style in three pictures" -o story
llada-uni chat --image panda.png
llada-uni --help
""".strip()

PYTHON = """from llada_uni.model import UniModel
model = UniModel.from_pretrained()
result = model.generate_image("a cartoon frog on pink", seed=7)
result.image.save("frog.png")
print(model.understand(result.image, "describe the picture").text)"""


def render_page(results: dict[str, Any], folder: Path) -> str:
    """The whole page. results: as `run_demo` returns them; folder: where the pictures they name lie."""
    page = _Page(folder)
    machine = results["machine"]
    facts = [
        f"{results['parameters'] / 1e6:.1f} M parameters in the backbone",
        f"{results['seconds']:.0f} s for this page",
        f"{machine['device']}, {machine['dtype']}, {machine['threads']} threads",
        f"seed {results['seed']}",
        results["made"].replace("T", " ").replace("+00:00", " UTC"),
    ]
    sections = "".join(page.section(section) for section in results["sections"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,
initial-scale=1"> <title>LLaDA2.0-Uni: one model that reads and draws</title><style>{STYLE}</style></head>
<body><header><h1>One model that reads and draws</h1> <p class="lead">Everything below was made just now on
this machine by one small block-diffusion model: it drew the pictures, answered the questions, made the edits
and told the story. Nothing was picked by hand; mistakes are shown as they came.</p> <ul
class="facts">{"".join(f"<li>{_text(fact)}</li>" for fact in facts)}</ul></header> <main>{sections} <h2>Go
on</h2><p class="note">The small world has 100 things and the ten digits, in three styles (cartoon, flat,
3d), on eight backgrounds.</p> <pre>{_text(GO_ON)}</pre><pre>{_text(PYTHON)}</pre></main> <footer>&ldquo;Read back&rdquo; is
what a program without any learned part sees in the picture, by matching every known drawing. Numbers behind
this page: <a href="results.json">results.json</a>. Model of this page: {_text(results["model"])}; torch
{_text(machine["torch"])}, Python {_text(machine["python"])}.</footer></body></html>
"""


class _Page:
    """Pieces of the page; reads the pictures they show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def section(self, section: dict[str, Any]) -> str:
        draw = {"understand": self.asked, "edit": self.changed, "inpaint": self.changed, "story": self.story}
        cards = "".join(draw.get(section["name"], self.drawn)(item) for item in section["items"])
        kind = {"edit": "grid twos", "inpaint": "grid twos", "story": "", "understand": "grid twos"}
        title, note = _text(section["title"]), _text(section["note"])
        layout = kind.get(section["name"], "grid")
        head = f'<h2>{title}</h2><p class="note">{note}</p>'
        return f'<section>{head}<div class="{layout}">{cards}</div></section>'

    def image(self, name: str, words: str) -> str:
        data = base64.b64encode((self.folder / name).read_bytes()).decode("ascii")
        return f'<img src="data:image/png;base64,{data}" alt="{_text(words)}" width="192" height="192">'

    def drawn(self, item: dict[str, Any]) -> str:
        return f'<article class="card">{self.image(item["file"], item["prompt"])}{_words(item)}</article>'

    def changed(self, item: dict[str, Any]) -> str:
        middle = f"{self.image(item['mask'], 'mask')}<b>&rarr;</b>" if item.get("mask") else ""
        three = " three" if middle else ""
        before = f"{self.image(item['before'], 'before')}<b>{'+' if middle else '&rarr;'}</b>"
        after = self.image(item["file"], item["prompt"])
        pictures = f'<div class="pair{three}">{before}{middle}{after}</div>'
        return f'<article class="card">{pictures}{_words(item)}</article>'

    def asked(self, item: dict[str, Any]) -> str:
        said = "".join(
            f'<p class="q">{_text(one["question"])}</p><p class="a">{_text(one["answer"]) or "&hellip;"}</p>'
            for one in item["exchange"]
        )
        seconds = sum(one["seconds"]["total"] for one in item["exchange"])
        evaluations = sum(one["evaluations"]["backbone"] for one in item["exchange"])
        meta = f'<p class="meta">{seconds:.1f} s, {evaluations} backbone evaluations</p>'
        title = "One conversation" if item["kind"] == "dialogue" else "Single questions"
        return (
            f'<article class="card ask"><div>{self.image(item["file"], "the picture asked about")}'
            f'<div class="words"><p class="prompt">{title}</p>{_reads(item)}{meta}</div></div>'
            f'<div class="bubbles">{said}</div></article>'
        )

    def story(self, item: dict[str, Any]) -> str:
        frames = "".join(
            f"<figure>{self.image(frame['file'], frame['text']) if frame.get('file') else ''}"
            f"<figcaption>{_text(frame['text'])}{_small(frame)}</figcaption></figure>"
            for frame in item["frames"]
        )
        prompt = f'<p class="prompt">&ldquo;{_text(item["prompt"])}&rdquo;</p>'
        return f'{prompt}<div class="frames">{frames}</div>{_meta(item)}'


def _words(item: dict[str, Any]) -> str:
    thought = f'<p class="thought">{_text(item["text"])}</p>' if item.get("text") else ""
    prompt = f'<p class="prompt">&ldquo;{_text(item["prompt"])}&rdquo;</p>'
    unseen = f'<p class="unseen">{_text(item["unseen"])}</p>' if item.get("unseen") else ""
    return f'<div class="words">{prompt}{thought}{unseen}{_reads(item)}{_meta(item)}</div>'


def _reads(item: dict[str, Any]) -> str:
    return f'<p class="reads">Read back: {_text(item["reads"])}</p>' if item.get("reads") else ""


def _small(frame: dict[str, Any]) -> str:
    return f"<small>Read back: {_text(frame['reads'])}</small>" if frame.get("reads") else ""


def _meta(item: dict[str, Any]) -> str:
    seconds = ", ".join(f"{name} {value:.2f} s" for name, value in item.get("seconds", {}).items() if name != "total")
    work = item.get("evaluations", {})
    total = item.get("seconds", {}).get("total", 0.0)
    return (
        f'<p class="meta">seed {item.get("seed")} &middot; {total:.2f} s ({_text(seconds)}) &middot; '
        f"evaluations: backbone {work.get('backbone', 0)}, decoder {work.get('decoder', 0)}</p>"
    )


def _text(words: Any) -> str:
    return html.escape(str(words))
