"""What tells who somebody is, or opens their door: mail addresses, telephone numbers, identity cards, keys."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal

import polars as pl

from qdata.rows.steps._extra import library, require
from qdata.rows.steps._judge import dropped, first_reason
from qdata.rows.steps._texts import TEXTS, by_text, changed_where, edited, settled

Kind = Literal["key", "email", "id_card", "phone"]
# RFC 2606 keeps these domains for examples: nobody is reached there.
_RESERVED = re.compile(
    r"@(?:[\w.-]+\.)?(?:example\.(?:com|org|net)|[\w-]+\.(?:example|test|invalid|localhost))\Z", re.I
)
_EMAIL = re.compile(
    r"(?<![\w.+-])[A-Za-z0-9][\w.+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])",
    re.A,
)
_ID_CARD = re.compile(
    r"(?<![0-9A-Za-z])[1-9][0-9]{5}(?:18|19|20)[0-9]{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])"
    r"[0-9]{3}[0-9Xx](?![0-9A-Za-z])"
)
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|\Z)"
    r"|(?<![\w-])(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
    r"|github_pat_[A-Za-z0-9_]{40,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[\w-]{35}|LTAI[A-Za-z0-9]{12,24}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,})(?![\w-])",
    re.A | re.S,
)
# What polars looks for first, so that a Python object is made of few texts only.
_MAY = {
    "email": r"[A-Za-z0-9]@[A-Za-z0-9]",
    "id_card": r"[1-9][0-9]{16}[0-9Xx]",
    "phone": r"[0-9](?:[ ().\-/]{0,3}[0-9]){6}",
    "key": r"PRIVATE KEY|sk-\w|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|hf_|xox[abprs]-|AIza|LTAI|eyJ",
}
_MOBILE = re.compile(r"1[3-9][0-9]{9}")  # mainland China
_DOTTED = re.compile(r"(?:1\.)?[0-9]{3}\.[0-9]{3}\.[0-9]{4}")
_AREA = re.compile(r"\+|\([0-9]+\)")
_DATE = re.compile(r"(?:19|20)[0-9]{2}([-/.])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12][0-9]|3[01])(?![0-9])")
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)


@dataclass(frozen=True)
class MaskPii:
    """Writes [EMAIL], [PHONE], [ID_CARD] or [KEY] in place of what is personal or secret, or drops such rows.

    Telephone numbers are those that libphonenumber calls valid, of `regions` or with a country's code; identity cards
    are Chinese ones whose checksum is right (GB 11643-1999); keys are those that tell by their form whose they are
    (OpenAI, Anthropic, AWS, GitHub, Hugging Face, Slack, Google, Aliyun, JWT, PEM). Domains kept for examples stay.
    """

    do: Literal["mask", "drop"] = field(default="mask", metadata={"help": "what becomes of it"})
    kinds: tuple[Kind, ...] = field(
        default=("key", "email", "id_card", "phone"), metadata={"help": "what is looked for"}
    )
    regions: tuple[str, ...] = field(
        default=("CN", "US"), metadata={"help": "whose telephone numbers, where no country's code is written"}
    )

    def __post_init__(self) -> None:
        """Raises QdataError where telephone numbers are asked for without phonenumbers, ValueError for no region."""
        if "phone" in self.kinds:
            require("phonenumbers")
            known = library("phonenumbers").SUPPORTED_REGIONS
            if unknown := [region for region in self.regions if region not in known]:
                raise ValueError(f"regions: {unknown[0]!r} is no code of a country; wanted CN, US, DE …")

    @property
    def edits(self) -> bool:
        """Masking does."""
        return self.do == "mask"

    def __call__(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """Edits all texts. Reasons: `mask_pii.key`, `mask_pii.email`, `mask_pii.id_card`, `mask_pii.phone`.

        >>> from qdata.rows.steps._turns import example, shown
        >>> shown(MaskPii()(example("user: a.b@mail.cn, 13812345678, 2024-01-01", "assistant: me@example.com")))
        ['user: [EMAIL], [PHONE], 2024-01-01', 'assistant: me@example.com']
        >>> shown(MaskPii(do="drop")(example("user: 11010519491231002X")))
        ['mask_pii.id_card']
        """
        if self.do == "mask":
            return edited(frame, self._masked)
        holds = [self._reason(kind, text) for kind in self.kinds for text in TEXTS]
        return dropped(frame, first_reason(pl.coalesce(holds)))

    def _reason(self, kind: Kind, text: str) -> pl.Expr:
        held = pl.col(text).map_batches(lambda texts: self._holds(kind, texts), pl.Boolean)
        return pl.when(held).then(pl.lit(f"mask_pii.{kind}"))

    def _masked(self, texts: pl.Series) -> pl.Series:
        may = "|".join(_MAY[kind] for kind in self.kinds)
        return changed_where(texts, may, lambda some: by_text(lambda text: settled(self._text, text), some))

    def _text(self, text: str) -> str:
        for kind in ("key", "email", "id_card", "phone"):  # an identity card is no telephone number
            if kind in self.kinds:
                text = self._without(kind, text)
        return text

    def _holds(self, kind: Kind, texts: pl.Series) -> pl.Series:
        may = texts.str.contains(_MAY[kind]).fill_null(False)
        found = [self._without(kind, text) != text for text in texts.filter(may).to_list()]
        return may.scatter(may.arg_true(), pl.Series(found, dtype=pl.Boolean)) if found else may

    def _without(self, kind: Kind, text: str) -> str:
        if kind == "key":
            return _KEY.sub("[KEY]", text)
        if kind == "email":
            return _EMAIL.sub(lambda m: m.group() if _RESERVED.search(m.group()) else "[EMAIL]", text)
        if kind == "id_card":
            return _ID_CARD.sub(lambda m: "[ID_CARD]" if _is_id_card(m.group()) else m.group(), text)
        return self._without_phones(text)

    def _without_phones(self, text: str) -> str:
        phonenumbers = library("phonenumbers")
        for region in self.regions:
            found = phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.VALID)
            for match in reversed([one for one in found if _is_written_as_phone(one.raw_string)]):
                text = f"{text[: match.start]}[PHONE]{text[match.end :]}"
        return text


def _is_written_as_phone(number: str) -> bool:
    """Whether a valid number is written like one: bare digits and dots may be any number, an address, a fraction.

    Nor is a date, with whatever stands behind it.
    """
    if _DATE.match(number):
        return False
    if number.isdigit():
        return _MOBILE.fullmatch(number) is not None
    return _AREA.match(number) is not None or "." not in number or _DOTTED.fullmatch(number) is not None


def _is_id_card(number: str) -> bool:
    """Whether the last character is the checksum of the others (ISO 7064, MOD 11-2)."""
    total = sum(int(digit) * weight for digit, weight in zip(number, _WEIGHTS, strict=False))
    return "10X98765432"[total % 11] == number[-1].upper()
