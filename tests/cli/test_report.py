"""`qdata report`: its numbers are the ledger's, nothing of a row breaks out of the page, and Chromium sees the same."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from click.testing import CliRunner

from qdata.cli import main

HOSTILE = [
    "<script>alert(1)</script>",
    "</svg></style></title><img src=x onerror=alert(1)>",
    "'\"><a href=https://example.com>x</a><!-- ]]> {{ 7 * 7 }} {% raw %}",
    "‮evil⁦ \0 \x1b[31m \u2028 \ufeff ‏ שלום &lt;b&gt;",
]
STEPS = ["--step", "empty_turn", "--step", "control_characters", "--step", "trailing_question", "do=trim"]


class Element(NamedTuple):
    """A start tag, and the text up to its end tag."""

    tag: str
    attributes: dict[str, str]
    text: list[str]


class Dom(HTMLParser):
    """All elements of a page, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}, []))
        if tag not in ("meta", "br"):
            self._open.append(self.elements[-1])

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(Element(tag, {name: value or "" for name, value in attrs}, []))

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop().tag != tag:
            pass

    def handle_data(self, data: str) -> None:
        for element in self._open:
            element.text.append(data)

    def having(self, *names: str) -> list[Element]:
        """The elements that have all of these attributes."""
        return [one for one in self.elements if one.attributes.keys() >= set(names)]

    def numbers(self, key: str, value: str) -> dict[str, int]:
        """`value` by `key`; and the number is what stands there to be read."""
        found = {}
        for one in self.having(key, value):
            number = int(one.attributes[value])
            assert "".join(one.text) == f"{number:,}", one
            found[one.attributes[key]] = number
        return found


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def qdata(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == code, done.output
    return done.output


def talk(*turns: str) -> dict[str, Any]:
    return {"messages": [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(turns)]}


def rows() -> list[dict[str, Any]]:
    """Clean ones, zh and en; hostile ones that are kept, edited and dropped; and doubles."""
    made = [talk(f"question {i}" * (i % 7 + 1), "answer " * (i % 11 + 1)) for i in range(40)]
    made += [talk("你好", "你好呀！我是沐雪", "再见", "下次见") for _ in range(3)]
    made += [talk(text, f"yes {text}") for text in HOSTILE]
    made += [talk(f"{text}?", f"{text}\u200b", "and?") for text in HOSTILE]
    made += [talk(text, "") for text in HOSTILE]
    return made


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three commands, one after the other; the file they began with has a hostile name."""
    raw = tmp_path / "<b>&'raw.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows()] + ["{broken </svg> \x00", '{"messages": "\\ud800"}']
    raw.write_text("\n".join(lines), encoding="utf-8")
    qdata("clean", str(raw), *STEPS, "-o", "a.jsonl")
    qdata("score", "a.jsonl", "--by", "language,repetition", "-o", "b.jsonl")
    qdata("dedup", "b.jsonl", "-o", "c.jsonl")
    return tmp_path / "c.jsonl"


def ledger(name: str) -> pl.DataFrame:
    return pl.read_parquet(Path(f"{name}.qdata") / "ledger.parquet", glob=False)


def reasons(names: tuple[str, ...]) -> dict[str, int]:
    """What the ledgers say, counted row by row."""
    found: Counter[str] = Counter()
    for name in names:
        for step, reason, action in ledger(name).select("step", "reason", "action").iter_rows():
            if action == "dropped":
                found[f"{step}.{reason}"] += 1
    return dict(found)


def agrees(dom: Dom, names: tuple[str, ...]) -> None:
    """The numbers of a page are those of the ledgers of these outputs, and of the last file's rows."""
    books = {name: ledger(name) for name in names}
    gone = {name: book.filter(pl.col("action") == "dropped").height for name, book in books.items()}
    edited = {row for book in books.values() for row in book.filter(pl.col("action") == "edited")["row"]}
    kept = books[names[-1]].filter(pl.col("action") != "dropped")
    assert dom.numbers("data-total", "data-rows") == {
        "in": books[names[0]].height,
        "kept": kept.height,
        "edited": len(edited & set(kept["row"])),
        "dropped": sum(gone.values()),
    }
    assert dom.numbers("data-reason", "data-rows") == reasons(names)
    assert [int(one.attributes["data-in"]) for one in dom.having("data-in")] == [book.height for book in books.values()]
    steps = Counter(step for book in books.values() for step in book.filter(pl.col("action") == "edited")["step"]
                    .str.split(",").explode())  # fmt: skip
    told = [(row.attributes["data-step"], dom.elements[dom.elements.index(row) :]) for row in dom.having("data-step")]
    found = {step: next(one for one in after if "data-edited" in one.attributes) for step, after in told}
    assert {step: n for step, one in found.items() if (n := int(one.attributes["data-edited"]))} == steps
    left = [int(one.attributes["data-left"]) for one in dom.having("data-left")]
    assert left == sorted(left, reverse=True) and left[-1] == kept.height
    drops = [int(one.attributes["data-dropped"]) for one in dom.having("data-dropped")]
    assert sum(drops) >= 2 * sum(gone.values())  # of each step, and in all
    talks = [json.loads(line)["messages"] for line in Path(names[-1]).read_text(encoding="utf-8").split("\n") if line]
    lengths = [sum(len(turn["content"]) for turn in talk) for talk in talks]
    (picture,) = [one for one in dom.having("data-distribution") if one.attributes["data-distribution"] == "characters"]
    at = dom.elements.index(picture)
    bins = []
    for one in dom.elements[at + 1 :]:
        if one.tag == "table":
            break
        if one.tag == "rect" and one.attributes["class"] == "kept":
            bins.append([float(one.attributes[f"data-{name}"]) for name in ("from", "to", "rows")])
    assert sum(count for *_, count in bins) == len(lengths) == kept.height
    assert all(sum(low <= n < high for n in lengths) == count for low, high, count in bins)
    extremes = {
        one.attributes["data-quantile"]: float(one.attributes["data-value"])
        for row in dom.having("data-quantiles", "data-group")
        if (row.attributes["data-quantiles"], row.attributes["data-group"]) == ("characters", "kept")
        for one in dom.elements[dom.elements.index(row) + 1 :][:8]
        if "data-quantile" in one.attributes
    }
    assert (extremes["min"], extremes["max"]) == (min(lengths), max(lengths))


def test_the_numbers_are_the_ledgers(out: Path) -> None:
    """Of all three commands, whichever way the page is asked for; and the terminal says the same."""
    told = qdata("report", str(out))
    page = Path("c.jsonl.report.html").read_text(encoding="utf-8")
    agrees(Dom(page), ("a.jsonl", "b.jsonl", "c.jsonl"))
    rows = reasons(("a.jsonl", "b.jsonl", "c.jsonl"))
    assert rows["exact.duplicate"] == 2 and rows["empty_turn.no_answer"] == 4 and rows["read.not_json"] == 2
    for why, count in rows.items():
        assert re.search(rf"{re.escape(why)} +{count} ", told), told
    assert "c.jsonl.report.html" in told


def test_the_same_output_gives_the_same_bytes(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From another folder, over the last one, and with a name of one's own; the default is the last output."""
    qdata("report")
    first = Path("c.jsonl.report.html").read_bytes()
    (tmp_path / "sub").mkdir()
    with monkeypatch.context() as there:
        there.chdir(tmp_path / "sub")
        qdata("report", str(out.with_name("c.jsonl.qdata")), "-o", "x.html")
    assert (tmp_path / "sub" / "x.html").read_bytes() == first
    qdata("report")
    assert Path("c.jsonl.report.html").read_bytes() == first
    assert "exists already" in qdata("report", "-o", "sub/x.html", code=2)
    Path("c.jsonl.report.html").write_text("mine")
    assert "exists already" in qdata("report", code=2)


def test_nothing_breaks_out_of_the_page(out: Path) -> None:
    """No tag but ours, nothing from outside, every hostile text there to be read."""
    qdata("report", "--samples", "9")
    page = Path("c.jsonl.report.html").read_text(encoding="utf-8")
    dom = Dom(page)
    tags = {one.tag for one in dom.elements}
    assert not tags & {"script", "img", "a", "link", "iframe", "object", "embed", "base", "form", "use", "image"}
    attributes = {name for one in dom.elements for name in one.attributes}
    assert not {name for name in attributes if name.startswith("on")} | attributes & {"src", "href", "xlink:href"}
    assert not re.search(
        r"url\(|@import|https?://", re.sub(r"<(?:del|ins|article)[^>]*>.*?</article>", "", page, flags=re.S)
    )
    assert not set(page) & set("\0\x1b\u2028\ufeff‮⁦‏\u200b")
    said = "".join(dom.elements[0].text)
    for text in (*HOSTILE[:3], "<b>&'raw.jsonl", "{broken </svg> U+0000", "U+202Eevil", "U+2066", "שלום"):
        assert text in said, text
    sections = [one for one in dom.elements if one.tag == "section"]
    assert [one.attributes["id"] for one in sections] == [
        "funnel", "reasons", "distributions", "sources", "languages", "samples", "made",
    ]  # fmt: skip


def test_sums_that_do_not_close_are_refused(out: Path) -> None:
    """A manifest or a ledger that was changed: one message, and no page."""
    folder = Path("c.jsonl.qdata")
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    wrong = manifest | {"rows": manifest["rows"] | {"kept": manifest["rows"]["kept"] + 1}}
    (folder / "manifest.json").write_text(json.dumps(wrong), encoding="utf-8")
    assert "kept, and the manifest says" in qdata("report", code=2)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    book = ledger("c.jsonl")
    book.filter(pl.int_range(pl.len()) > 0).write_parquet(folder / "ledger.parquet")
    assert "and the manifest says" in qdata("report", code=2)
    (folder / "ledger.parquet").write_bytes(b"no parquet")
    assert "not the ledger that was written" in qdata("report", code=2)
    assert not list(Path().glob("*.html"))


def test_a_file_that_is_gone_or_edited(out: Path) -> None:
    """Its ledger still tells the funnel; the rows themselves are not told of another file."""
    out.write_text(out.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "gone or was edited" in qdata("report", str(out))
    out.unlink()
    assert "gone or was edited" in qdata("report", str(out))
    dom = Dom(Path("c.jsonl.report.html").read_text(encoding="utf-8"))
    assert dom.numbers("data-reason", "data-rows")
    assert not [one for one in dom.having("data-quantiles") if one.attributes["data-group"] == "kept"]


def test_shards_with_all_that_led_to_them(out: Path) -> None:
    """Splits as the manifest has them, tokens as the shards have them, and the funnel from the first file on."""
    qdata("render", str(out), "--val", "3", "--max-length", "60", "-o", "shards")
    qdata("report", "shards")
    dom = Dom(Path("shards.report.html").read_text(encoding="utf-8"))
    manifest = json.loads(Path("shards/manifest.json").read_text(encoding="utf-8"))
    assert [one.attributes["data-command"] for one in dom.having("data-command")] == [
        "clean",
        "score",
        "dedup",
        "render",
    ]
    book = pl.read_parquet("shards/ledger.parquet", glob=False)
    kept = book.filter(pl.col("action") != "dropped").height
    assert dom.numbers("data-total", "data-rows")["kept"] == kept
    assert dom.numbers("data-reason", "data-rows")["max_length.too_long"] == len(
        book.filter(pl.col("step") == "max_length")
    )
    for name, split in manifest["splits"].items():
        (row,) = [one for one in dom.having("data-split") if one.attributes["data-split"] == name]
        cells = dom.elements[dom.elements.index(row) + 1 :][:8]
        told = {key: cell.attributes[key] for cell in cells for key in cell.attributes if key.startswith("data-")}
        assert int(told["data-tokens"]) == split["tokens"] and int(told["data-trained"]) == split["trained_tokens"]
    assert {one.attributes["data-sha256"] for one in dom.having("data-sha256")} >= {
        shard["sha256"] for split in manifest["splits"].values() for shard in split["shards"]
    }
    samples = sum(split["samples"] for split in manifest["splits"].values())
    (rows,) = [one for one in dom.having("data-quantiles") if one.attributes["data-quantiles"] == "trained_tokens"]
    assert dom.elements[dom.elements.index(rows) + 3].attributes["data-rows"] == str(samples)
    manifest["splits"]["train"]["trained_tokens"] += 1
    Path("shards/manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert "trained tokens in its shards" in qdata("report", "shards", code=2)


def test_rows_that_went_two_ways_are_counted_once() -> None:
    """What one command left out and another did not is kept, and came in once."""
    Path("in.jsonl").write_text(
        "\n".join(json.dumps(talk("q" * (i + 1), "answer")) for i in range(9)), encoding="utf-8"
    )
    qdata("score", "in.jsonl", "--by", "length", "-o", "s.jsonl")
    qdata("filter", "s.jsonl", "--where", "score.length < 10", "-o", "short.jsonl")
    qdata("filter", "s.jsonl", "--where", "score.length > 11", "-o", "long.jsonl")
    qdata("dedup", "short.jsonl", "long.jsonl", "-o", "both.jsonl")
    qdata("report")
    dom = Dom(Path("both.jsonl.report.html").read_text(encoding="utf-8"))
    assert dom.numbers("data-total", "data-rows") == {"in": 9, "kept": 7, "edited": 0, "dropped": 2}
    assert [one.attributes["data-command"] for one in dom.having("data-command")] == [
        "score",
        "filter",
        "filter",
        "dedup",
    ]


@pytest.mark.parametrize("rows", [[talk("a", "b")], [{"text": "words of a document"}]], ids=["chat", "text"])
def test_small_outputs_of_other_kinds(rows: list[dict[str, Any]]) -> None:
    """One row, nothing edited and nothing dropped; pretraining text."""
    Path("in.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    qdata("clean", "in.jsonl", "--step", "normalize", "-o", "out.jsonl")
    qdata("report")
    dom = Dom(Path("out.jsonl.report.html").read_text(encoding="utf-8"))
    assert dom.numbers("data-total", "data-rows") == {"in": 1, "kept": 1, "edited": 0, "dropped": 0}
    assert "characters" in {one.attributes["data-constant"] for one in dom.having("data-constant")}


def test_pairs_have_both_answers() -> None:
    """The rejected answer has a distribution of its own."""
    pairs = [{"prompt": "q", "chosen": "c" * (i + 1), "rejected": "r" * (i + 2)} for i in range(5)]
    Path("in.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    qdata("dedup", "in.jsonl", "-o", "out.jsonl")
    qdata("report")
    dom = Dom(Path("out.jsonl.report.html").read_text(encoding="utf-8"))
    ends = {
        row.attributes["data-quantiles"]: [
            one.attributes["data-value"]
            for one in dom.elements[dom.elements.index(row) + 1 :][:8]
            if one.attributes.get("data-quantile") in ("min", "max")
        ]
        for row in dom.having("data-quantiles")
    }
    assert ends["answer"] == ["1.0", "5.0"] and ends["rejected"] == ["2.0", "6.0"]


def test_chromium_shows_the_ledgers_numbers(out: Path, tmp_path: Path) -> None:
    """The page is opened by a browser that reaches nothing, and what it then shows is compared with the ledger."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here: the page is looked at by a parser only")
    qdata("report", "-o", "page.html")
    reach = ["--proxy-server=127.0.0.1:9", "--host-resolver-rules=MAP * ~NOTFOUND"]
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", f"--user-data-dir={tmp_path}/c"]
    page = Path("page.html").resolve().as_uri()
    done = subprocess.run([browser, *quiet, *reach, "--dump-dom", page], capture_output=True, check=True, timeout=120)
    dom = Dom(done.stdout.decode("utf-8"))
    agrees(dom, ("a.jsonl", "b.jsonl", "c.jsonl"))
    assert not {one.tag for one in dom.elements} & {"script", "img", "a", "link"}
    written = Dom(Path("page.html").read_text(encoding="utf-8"))
    ignored = {"html", "head", "body", "tbody"}  # which a browser adds where they are left out
    assert [one.tag for one in dom.elements if one.tag not in ignored] == [
        one.tag for one in written.elements if one.tag not in ignored
    ]
