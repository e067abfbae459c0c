"""Parts of a self-contained HTML page: light and dark mode, printable, no external files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape as escaped

from sparsedial.units import unbroken

HYPHENED = re.compile(r"(\S*-\S*)")  # words that a browser would break, after `--` for one
EIGHT_OF_MANY = re.compile(r"[0-9a-f]{8}(?=[0-9a-f]{8})")
LONGEST_WHOLE = 30  # characters of a word that fits on a phone
_CSS = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:54rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .4rem;text-wrap:balance}
h2{font-size:1.25rem;margin:3rem 0 .6rem;padding-top:1rem;border-top:1px solid var(--rule)}
h3{font-size:1rem;margin:1.8rem 0 .3rem}
p,ul{margin:.5rem 0}
li{margin:.3rem 0}
.kicker{color:var(--muted);margin:0 0 .5rem}
.quiet,figcaption{color:var(--muted);font-size:.9rem}
figure{margin:1.8rem 0;break-inside:avoid}
.wide{overflow-x:auto;background:
linear-gradient(to right,var(--paper) 1rem,transparent) local,
linear-gradient(to left,var(--paper) 1rem,transparent) local,
linear-gradient(to right,var(--rule),transparent) scroll,linear-gradient(to left,var(--rule),transparent) scroll;
background-position:left,right,left,right;background-size:2.5rem 100%,2.5rem 100%,1rem 100%,1rem 100%;
background-repeat:no-repeat}
figure svg{display:block;width:100%;min-width:40rem;height:auto}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums;margin:.8rem 0}
th,td{padding:.3rem .8rem .3rem 0;text-align:right;vertical-align:top;white-space:nowrap}
tr{border-bottom:1px solid var(--rule)}
th{color:var(--muted);font-weight:500}
th:first-child,td:first-child,.words td,.words th{text-align:left}
.words td+td{white-space:normal;overflow-wrap:break-word}
p{overflow-wrap:anywhere}
pre{background:var(--rule);padding:.8rem 1rem;border-radius:.4rem;font-size:.9rem;white-space:pre-wrap;
overflow-wrap:anywhere}
.whole{white-space:nowrap}
dt{font-weight:600}
dd{margin:0 0 .5rem}
summary{cursor:pointer;color:var(--muted)}
.narrow{display:none}
@media screen and (max-width:44rem){
main{padding:1.25rem 1rem 3rem}
h1{font-size:1.5rem}
.narrow{display:block}
.broad{display:none}
figure svg{min-width:0}
.words td:first-child{white-space:normal}
}
@media print{
main{padding:0;max-width:none}
body{font-size:11pt}
figure svg{min-width:0}
.wide{overflow:visible;background:none}
details::details-content{content-visibility:visible;height:auto}
}
"""


def escape(text: str) -> str:
    """A text as HTML."""
    return escaped(unbroken(text))


def page(title: str, body: str, colours: Mapping[str, tuple[str, str, str]]) -> str:
    """A whole HTML page around a body, with the colours of its pictures for light and dark mode."""
    light = ";".join(f"--{name}:{colour}" for name, colour, _ in colours.values())
    dark = ";".join(f"--{name}:{colour}" for name, _, colour in colours.values())
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n:root{{{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}{_CSS}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str | None, kind: str = "") -> str:
    """A paragraph; empty for an empty text."""
    return f"<p{_class(kind)}>{escape(text)}</p>" if text else ""


def bullets(items: Sequence[str]) -> str:
    """A list; empty without items."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def command(text: str | None) -> str:
    """A command to copy; empty for None. Its words with hyphens, unless very long, do not break at line ends."""
    if not text:
        return ""
    parts = HYPHENED.split(text)
    shown = "".join(
        f'<span class="whole">{escaped(part)}</span>' if number % 2 and len(part) <= LONGEST_WHOLE else escaped(part)
        for number, part in enumerate(parts)
    )
    return f"<pre><code>{shown}</code></pre>"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """A table that scrolls sideways where it is too wide."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{_cell(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    above = f"<thead><tr>{head}</tr></thead>" if heads else ""
    return f'<div class="wide"><table{_class(kind)}>{above}<tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    """A cell's text; a path may be broken behind its slashes, and a digest or a run's name in it every eight digits."""
    return escape(text) if " " in text else EIGHT_OF_MANY.sub("\\g<0><wbr>", escape(text).replace("/", "/<wbr>"))


def folded(summary: str, content: str) -> str:
    """Content that is folded until it is opened."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def definitions(words: Mapping[str, str]) -> str:
    """Words with their meanings."""
    return "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(said)}</dd>" for word, said in words.items()) + "</dl>"


def picture(drawn: str, caption: str = "") -> str:
    """An inline picture, with a caption where its own title is not enough."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><div class="wide">{drawn}</div>{below}</figure>'


def for_screens(broad: str, narrow: str) -> str:
    """A picture that is drawn twice: for a desktop, and for the width of a phone."""
    return f'<div class="broad">{broad}</div><div class="narrow">{narrow}</div>'


def pictures(drawn: Mapping[str, str], *names: str) -> str:
    """The named pictures that were drawn."""
    return "\n".join(picture(drawn[name]) for name in names if name in drawn)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
