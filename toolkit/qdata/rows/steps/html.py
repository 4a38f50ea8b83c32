"""Remnants of web pages: tags and entities in text that is no HTML."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from qdata.rows.steps._fences import outside_code
from qdata.rows.steps._judge import first_reason
from qdata.rows.steps._texts import TEXTS, by_text, changed_where, edited, settled

# Whoever speaks of one of these may mean the tags that stand in the text.
_TOPIC = (
    r"(?i)\b(?:x?html5?|xml|xslt|svg|css|jsx?|tsx|dom|php|asp|jsp|rss|bbcode|markup|markdown|javascript|typescript"
    r"|jquery|react|vue|angular|bootstrap|web ?page|web ?site|web ?site's|hyperlink|browser|front-?end|entit(?:y|ies)"
    r"|regex|regular expression|parse[rs]?|scrap(?:e|ing)|tags?|bold|italics?|fonts?|underline[ds]?|code|programs?"
    r"|images?)\b"
    r"|<(?:div|table|form|style|input|button|select|canvas|meta|link|section|nav|header|footer|textarea|iframe)\b"
    r"|网页|网站|前端|标签|超链接|浏览器|正则|爬虫|解析|<!doctype|<html|<\?xml|<\?php|</script|</head|</body"
)
_BLOCK = "p|div|li|ul|ol|tr|table|tbody|thead|h[1-6]|blockquote|section|article|center|pre|dd|dt|dl"
_INLINE = "b|i|u|s|em|strong|span|font|small|big|a|td|th|strike|del|ins|mark|label|nobr"
_ALONE = re.compile(r"<(?:br|hr)\s*/?\s*>[ \t]*\n?|<img\s[^<>]*>", re.I)
_PAIR = re.compile(rf"<(?P<name>{_BLOCK}|{_INLINE})(?:\s[^<>]*)?>(?P<inner>.*?)</(?P=name)\s*>", re.I | re.S)
_COMMENT = re.compile(r"<!--.*?-->", re.S)
_ENTITY = re.compile(r"&(?:[a-zA-Z][a-zA-Z0-9]{1,10}|#[0-9]{1,6}|#[xX][0-9a-fA-F]{1,5});")
_MAY = r"(?i)<(?:br|hr|img|!--|/)|&(?:[a-z][a-z0-9]{1,10}|#[0-9]{1,6}|#x[0-9a-f]{1,5});"
_LINES = re.compile(rf"\A(?:{_BLOCK})\Z", re.I)


@dataclass(frozen=True)
class Html:
    """Takes away tags of text, writes entities as the characters they stand for; code and talk about HTML stay.

    Only tags that open and close, `<br>`, `<hr>`, `<img …>` and comments are taken; `<T>`, `<name>` and single `<b>`
    stay. A row in which somebody mentions HTML, tags, fonts and the like, or writes forms, tables and boxes in tags, is
    left alone as a whole.
    """

    tags: bool = field(default=True, metadata={"help": "take tags away"})
    entities: bool = field(default=True, metadata={"help": "write &amp; as & and so on"})
    edits: ClassVar[bool] = True

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(Html()(example("user: Tom &amp; <b>Jerry</b><br>a < b", "assistant: `<b>x</b>`")))
        ['user: Tom & Jerry\\na < b', 'assistant: `<b>x</b>`']
        >>> shown(Html()(example("user: Bold in HTML?", "assistant: <b>x</b>")))
        ['user: Bold in HTML?', 'assistant: <b>x</b>']
        """
        return frame.map_batches(self._of_part)

    def _of_part(self, frame: pl.DataFrame) -> pl.DataFrame:
        numbered = frame.with_row_index("_at")
        found = numbered.filter(_has(_MAY))
        if not (plain := found.filter(~_has(_TOPIC))).height:
            return frame
        made = edited(plain.lazy(), self._edited).collect()
        rest = numbered.join(made, on="_at", how="anti")
        return pl.concat([rest, made]).sort("_at").drop("_at")

    def _edited(self, texts: pl.Series) -> pl.Series:
        def plain(some: pl.Series) -> pl.Series:
            return changed_where(some, _MAY, lambda found: by_text(lambda text: settled(self._plain, text), found))

        return changed_where(texts, _MAY, lambda some: outside_code(some, plain, inline=True))

    def _plain(self, text: str) -> str:
        given = text
        if self.tags:
            text = _ALONE.sub(lambda m: "" if m.group()[1] in "iI" else "\n", _COMMENT.sub("", text))
            text = _PAIR.sub(_inner, text)
        text = _ENTITY.sub(_character, text) if self.entities else text
        return text if text.strip() else given  # nothing but tags: that was meant


def _inner(pair: re.Match[str]) -> str:
    return f"\n{pair['inner']}\n" if _LINES.match(pair["name"]) else pair["inner"]


def _character(entity: re.Match[str]) -> str:
    made = html.unescape(entity.group())
    return " " if made == "\xa0" else made if len(made) == 1 and made.isprintable() else entity.group()


def _has(pattern: str) -> pl.Expr:
    """Whether a pattern is found in some text of a row."""
    found = pl.any_horizontal(pl.col(text).str.contains(pattern) for text in TEXTS)
    return first_reason(pl.when(found).then(pl.lit("found"))).is_not_null()
