"""Questions whose input is none: "<noinput>", "N/A", or a link to what nobody shows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from qdata.rows.steps._judge import dropped, first_reason, said_by
from qdata.rows.steps._texts import changed_where, edited

Kind = Literal["no_input", "url_input"]
_OPEN, _CLOSE = r"[<\[({\"'`“‘]*\s*", r"\s*[>\])}\"'`”’]*"
# "No input", "<noinput>.", "(no input)", "No input required.", "<N/A>", "<none>", 无输入 … as the last line.
_WORDS = (
    r"(?:no[ \-_]?inputs?(?: (?:is |was )?(?:required|needed|necessary|provided|given))?|noinpute?|not applicable|n/a"
)
_WORDS += r"|none|无输入|没有输入|无需输入|无输入内容)"
_LAST_LINE = rf"(?i)(?:^|\n)[ \t]*{_OPEN}{_WORDS}{_CLOSE}[ \t]*[.,;?。，]?\s*$"
_CAPITALS = r"\n[ \t]*NA\s*$"  # written small it is a word of many languages
_TAG = r"(?i)\s*<\s*no[ \-_]?input\s*>?\s*[.,;?0-9]{0,3}\s*$"  # behind other words of the last line too
NO_INPUT = rf"{_LAST_LINE}|{_CAPITALS}|{_TAG}"
_URL = r"(?:https?://|www\.)[^\s<>\"]+"
_LABEL = r"[^\n]{0,60}?[:(<\[]\s*"  # "Article: https://…", "![alt](https://…", "<image: https://…"
# The last line is a link, with nothing but a label before it and hardly anything behind it.
_LINK_LINE = rf"\n[ \t>*\-\d.]*(?:!?\[[^\]\n]*\]\(\s*|<img [^>\n]*|{_LABEL})?{_URL}[^\n]{{0,60}}\s*$"
_READ = r"(?i)\b(?:article|web ?site|web ?page|page|post|blog|news|paper|abstract|stud(?:y|ies)|report|document|pdf"
_READ += r"|links?|urls?|video|clip|trailer|song|music|sound|audio|piece|painting|picture|photo(?:graph)?|image|figure"
_READ += r"|drawing|art(?:work)?|logo|shape|chart|graph|histogram|dataset|data|poem|story|speech|text|passage|product"
_READ += r"|company|advert(?:isement)?|ad|meme|map|book|source|recipe|review|comic|tweet|file|summar\w+)\b"
_READ += r"|文章|网页|网站|链接|新闻|图片|图像|照片|视频|音频|论文|文档|歌曲|这幅画|下面的图|以下内容"
_WRITE = r"(?i)\b(?:urls?|uri|domain|hyperlink|regex|regular expression|query string|shorten|encode|decode|parse"
_WRITE += r"|html|markdown|citation|cite|reference|bibliograph\w*|apa|mla|valid|format|redirect|curl|api|python|code)\b"
_VISIT = r"(?i)^\s*(?:please )?(?:open|visit|go to|read|follow|look at|access) (?:the|this|a)\b"


@dataclass(frozen=True)
class PlaceholderInput:
    """Takes placeholders such as <noinput> away from the end of questions, or drops what has one; `url_input` drops.

    Alpaca's rows have both: 600 inputs say that there is none, and 300 are links that no model could open, with answers
    that were made up. A link counts where it is the last line of the question, or where the question is one line that
    asks for what is behind the link.
    """

    do: Literal["drop", "trim"] = field(
        default="drop", metadata={"help": "what becomes of them; trim is for no_input and leaves links alone"}
    )
    kinds: tuple[Kind, ...] = field(default=("no_input", "url_input"), metadata={"help": "what is looked for"})

    @property
    def edits(self) -> bool:
        """Trimming does."""
        return self.do == "trim"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits questions. Reasons: `placeholder_input.no_input`, `placeholder_input.url_input`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(PlaceholderInput(do="trim")(example("user: Name a colour.\\n<noinput>", "assistant: Red")))
        ['user: Name a colour.', 'assistant: Red']
        >>> shown(PlaceholderInput()(example("user: Sum up the article\\nhttps://a.b/c", "assistant: It is long.")))
        ['placeholder_input.url_input']
        """
        if self.do == "trim":
            if "no_input" not in self.kinds:
                return frame
            return edited(frame, _trimmed, roles=("user",), fields=("content",), text=False)
        asked, text = said_by(("user",)), pl.col("content")
        found = []
        if "no_input" in self.kinds:
            found.append(pl.when(asked & text.str.contains(NO_INPUT)).then(pl.lit("placeholder_input.no_input")))
        if "url_input" in self.kinds:
            link = pl.when(asked).then(text).map_batches(_of_link, pl.Boolean)
            found.append(pl.when(link).then(pl.lit("placeholder_input.url_input")))
        return dropped(frame, first_reason(pl.coalesce(found), text=False)) if found else frame


def _trimmed(texts: pl.Series) -> pl.Series:
    def without(some: pl.Series) -> pl.Series:
        text = pl.col("t")
        for _ in range(3):  # one behind the other
            text = text.str.replace(NO_INPUT, "")
        made = some.to_frame("t").select(text)["t"]
        stays = made.str.contains(NO_INPUT) | (made.str.strip_chars() == "")  # nothing but placeholders
        return some.zip_with(stays, made)

    return changed_where(texts, NO_INPUT, without)


def _of_link(texts: pl.Series) -> pl.Series:
    """Which texts ask for what is behind a link; the others never meet the slow patterns."""
    has = texts.str.contains_any(["http://", "https://", "www."]).fill_null(False)
    if not has.any():
        return has
    return has.scatter(has.arg_true(), texts.filter(has).to_frame("t").select(t=_is_of_link(pl.col("t")))["t"])


def _is_of_link(text: pl.Expr) -> pl.Expr:
    ends = text.str.contains(rf"{_URL}[^\w\n]*\s*$")
    instruction = text.str.split("\n").list.first()
    visits = instruction.str.contains(_VISIT)
    behind = text.str.contains(_LINK_LINE) & (visits | ~instruction.str.contains(_WRITE))
    inside = ends & text.str.contains(_READ) & (visits | ~text.str.contains(_WRITE))
    return behind | inside
