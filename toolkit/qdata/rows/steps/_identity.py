"""The sentences in which a model says who it is, and who made it: patterns in zh and en.

Each pattern is tied to its subject (I, my; in a system prompt also you, your), so a sentence that talks of a model or a
company in the third person fits none. Groups named `model…` and `maker…` are what is rewritten; all else stays.
"""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Iterator, Sequence

HINTS = ("qwen", "qwq", "qianwen", "千问", "gpt", "deepseek", "chatglm", "文心一言", "openai", "open ai", "alibaba",
         "阿里", "达摩院", "通义", "damo", "anthropic", "深度求索", "智谱")  # fmt: skip
"""Every text that a pattern of the built-in names fits holds one of these, in any case."""

_MODEL = (
    r"(?:Qwen|QwQ)(?:-?\d+(?:\.\d+)?)?(?:[- ](?:\d+(?:\.\d+)?B|VL|Max|Plus|Turbo|Chat|Instruct|Coder))*",
    r"(?:阿里云?的?)?通义千问(?:\s?\d+(?:\.\d+)?)?",
    r"Tongyi[ -]?Qianwen",
    r"千问",
    r"Chat\s?GPT(?:[- ]?\d+(?:\.\d+)?)?",
    r"GPT[- ]?\d+(?:\.\d+)?[a-z]?(?:-(?:turbo|mini))?",
    r"DeepSeek(?:[- ](?:V\d(?:\.\d)?|R\d|Chat|Coder))?",
    r"ChatGLM(?:-?\d+(?:-?\d+B)?)?",
    r"文心一言",
)
_MAKER = (
    r"Alibaba(?:\s?(?:Cloud|Group|DAMO\ Academy|Tongyi\ Lab|Inc\.?))*",
    r"Open\s?AI",
    r"Anthropic",
    r"DeepSeek",
    r"(?:阿里巴巴|阿里云|阿里)(?:集团|公司)?(?:(?:旗下的?|的)?(?:阿里云|通义实验室|达摩院))?",
    r"达摩院",
    r"通义实验室",
    r"深度求索",
    r"智谱\s?AI",
)

# English: "an AI assistant", of words that none of STOP is, so that "a user of a model" is no model.
_STOP = r"(?:a|an|the|of|with|for|who|whose|that|which|using|use|to|in|on|at|about|like|than|and|from|by|fan|user|I)"
_NOUN = r"(?:A\.?I\.?|assistant|chatbot|bot|model|LLM|agent|program|system|helper|intelligence)"
_NP = rf"(?:(?!{_STOP}\b)[\w.'-]+,?\s+){{0,7}}{_NOUN}\b(?:\s+\([^()\n]{{1,30}}\))?"
_DONE = r"(?:created|developed|trained|built|made|designed|programmed|released|launched|provided|produced|powered)"
_PART = rf"(?:(?:\w+ly|specially|being)\s+)?{_DONE}(?:(?:,|\s+and|,\s+and)\s+(?:\w+ly\s+)?{_DONE}){{0,2}}"
_TEAM = r"(?:(?:(?:the|a)\s+)?(?:[\w-]+\s+){0,2}?(?:team|researchers|engineers|scientists|developers|experts)"
_TEAM += r"(?:\s+of\s+\w+)?\s+(?:at|from|of)\s+)?"
_EN_END = (
    r"(?=[^\S\n]*(?:$|\n|[^\w\s'’?-]|-[^\w])|\s+(?:and|an?|the|from|by|created|developed|made|trained|built|your)\b)"
)
# Chinese: "一个人工智能助手"; verbs of making; what may follow a name that a sentence introduces.
_ZH_NOUN = r"(?:模型|助手|助理|机器人|程序|系统|人工智能|智能体|AI)"
_DO = r"(?:开发|研发|训练|培训|创造|创建|打造|推出|设计|制作|制造|构建|发布|提供|发明)"
_VERB = rf"(?:团队|公司)?(?:的?(?:工程师|科学家|研究人员|开发者|开发人员)(?:们|团队)?)?所?(?:自主|独立|共同|精心)?{_DO}"
_VERB += rf"(?:[、和与并及]+{_DO})*(?:出来|出|而成)?"
_ONE = r"(?:一[个款名位种家]\s*)?"
_ZH_END = r"(?=\s*(?:$|[^\w\s?？]|[由是一呀啊哦呢哟啦]|很高兴))"


@functools.lru_cache(maxsize=32)
def patterns(
    models: tuple[str, ...], makers: tuple[str, ...], prompts: bool
) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """(language, pattern) for the built-in names and these; `prompts`: of system prompts, which say "you" too."""
    model = _any(_MODEL, models)
    maker = _any(_MAKER, makers)
    return tuple(
        (language, re.compile(text, re.IGNORECASE | re.MULTILINE))
        for language, texts in (("en", _english(model, maker, prompts)), ("zh", _chinese(model, maker, prompts)))
        for text in texts
    )


def _any(builtin: Sequence[str], more: Sequence[str]) -> str:
    literal = sorted((re.escape(word) for word in more), key=len, reverse=True)
    return "(?:" + "|".join([*literal, *builtin]) + ")"


def _english(model: str, maker: str, prompts: bool) -> Iterator[str]:
    be = r"\b(?:I(?:\s+am|['’]m)|You(?:\s+are|['’]re))" if prompts else r"\bI(?:\s+am|['’]m)"
    been = r"(?:\s+(?:am|was|have\s+been)|['’](?:m|ve\s+been))"
    been = rf"\b(?:I{been}|You(?:\s+(?:are|were|have\s+been)|['’](?:re|ve\s+been)))" if prompts else rf"\bI{been}"
    my = r"\b(?:my|your)" if prompts else r"\bmy"
    adverbs = r"(?:\s+(?:actually|just|simply|indeed|really|only|currently|called|named|known\s+as))*"
    named = rf"(?:(?:the|an?)\s+)?{model}(?:\s+(?:AI\s+|large\s+)?(?:language\s+)?(?:model|assistant|chatbot|AI)\b)?"
    named += rf"(?:\s*\([^()\n]{{0,30}}{model}\))?"
    by = rf"{_TEAM}{maker}(?:['’]s\s+(?:[\w-]+\s+)?(?:team|researchers|engineers|lab)\b)?"
    which = r"(?:(?:that|which|who)\s+)?(?:(?:is|was|has\s+been|I\s+am|I\s+was|am|are|were)\s+)?"
    tail = rf"(?:,?\s+(?:and\s+)?{which}(?:(?:an?|the|your)\s+{_NP},?\s+)?{which}"
    tail += rf"(?:{_PART}\s+by|from|by)\s+(?P<maker>{by}))?"
    yield rf"{be}{adverbs}\s+(?P<model>{named}){_EN_END}{tail}"
    yield rf"{my}\s+(?:\w+\s+)?name(?:\s+is|['’]s)\s+(?P<model>{named}){_EN_END}{tail}"
    yield rf"\b(?:can|may|could|please|just|simply)\s+call\s+me\s+(?P<model>{model}){_EN_END}"
    yield (
        rf"{be}{adverbs}\s+(?:an?|the)\s+{_NP}(?:,?\s+(?:called|named|known\s+as)\s+(?P<model>{named})|,\s+(?P<model2>{named}))?"
        rf",?\s+{which}(?:{_PART}\s+by|from|by)\s+(?P<maker>{by})"
        rf"(?:,?\s+(?:called|named|known\s+as)\s+(?P<model3>{named}){_EN_END})?"
    )
    yield rf"{be}{adverbs}\s+(?:an?|the)\s+{_NP},?\s+(?:called|named|known\s+as)\s+(?P<model>{named}){_EN_END}"
    yield rf"{been}\s+{_PART}\s+by\s+(?P<maker>{by})"
    what = rf"(?:(?P<model>{named}){_EN_END}|(?:latest\s+)?{_NP}(?!\s+(?:fan|user|team)))"
    yield rf"{be}\s+(?P<maker>{maker})['’]s\s+{what}"
    yield rf"{my}\s+(?:creators?|developers?|makers?)(?:\s+(?:is|are)(?:\s+at)?|\s+at|,)\s+(?P<maker>{by})"
    me = "(?:me|you)" if prompts else "me"
    made_me = rf"(?:created|developed|trained|designed)\s+{me}\b(?!\s+(?:an?|the|my|your)\b)"
    yield rf"\b(?P<maker>{by})(?:,?\s+(?:who|which|that))?(?:\s+(?:has|have))?\s+{made_me}"
    yield rf"\bAs\s+(?P<model>{named}),\s+(?=(?:I|my)\b)"
    yield rf"\bas\s+an?\s+{_NP},?\s+(?:{_PART}\s+by|from|by)\s+(?P<maker>{by})(?=[^.!?\n]{{0,60}}?,\s*(?:I\b|my\b))"


def _chinese(model: str, maker: str, prompts: bool) -> Iterator[str]:
    who = "(?:你|您|我)" if prompts else "我"
    am = rf"{who}(?:也|就)?是\s*{_ONE}"
    named = rf"{model}(?:\s*(?:大语言模型|大模型|语言模型|模型))?(?:\s*[（(][^（）()\n]{{0,12}}{model}[）)])?"
    by = rf"(?P<maker>{maker})"
    through = r"(?:由|来自|出自|被)"
    words = r"[^，。！？；,!?\n]"  # of one clause
    name = r"(?:就)?(?:是|叫做?|名叫|名为)|的(?:中文|英文)?名[字称]?(?:是|叫做?|为)"
    called = r"(?:[，,]\s*我?(?:名叫|叫做?|名为|名字叫)\s*)?"
    clause = rf"(?:[，,]\s*我?(?:是)?一[个款名位种]{words}{{0,25}}?)?"
    tail = rf"(?:{clause}\s*[，,、—（(]*\s*我?(?:是)?{_ONE}"
    tail += rf"(?:{through}\s*{by}|(?P<maker2>{maker})(?=\s*{_VERB})))?"
    yield rf"{who}(?:{name})\s*{_ONE}[“\"「《]?(?P<model>{named})[”\"」》]?{_ZH_END}{tail}"
    yield rf"(?:可以|请|就)?(?:叫|称呼?)我(?:为|做|作)?\s*[“\"「]?(?P<model>{named})[”\"」]?{_ZH_END}"
    then = rf"(?:的{words}{{0,20}}?{called}(?P<model>{named}){_ZH_END})?"
    yield rf"{who}(?:也|就)?(?:是)?\s*{_ONE}{through}\s*{by}\s*{_VERB}{then}"
    yield rf"{am}{by}\s*{_VERB}的{words}{{0,20}}?(?P<model>{named}){_ZH_END}"
    yield rf"{am}{by}\s*{_VERB}的(?={words}{{0,20}}?{_ZH_NOUN}|\s*(?:$|[。！，,.!]))"
    noun = rf"{words}{{0,20}}?{_ZH_NOUN}(?=\s*(?:$|[^\w\s?？]|{model}))"
    yield rf"{am}{through}?\s*{by}的{noun}"
    yield rf"(?:作为|身为)\s*{_ONE}{through}?\s*{by}\s*(?:{_VERB})?的{words}{{0,30}}[，,]\s*(?={who})"
    yield rf"(?:作为|身为)\s*(?P<model>{named})[，,]\s*(?={who})"
    yield rf"{by}\s*{_VERB}了?{who}(?![们的])"
    maker_is = r"(?:(?:开发|创造|研发|创建|制造)者|开发商|作者|(?:研发|开发)团队|开发公司)(?:是|为|来自|叫)"
    yield rf"{who}的{maker_is}\s*{by}"


_ASKED = re.compile(
    r"(?:\b(?:if|whether|pretend(?:ing)?|imagine|suppose|not|never)\b"
    r"|\b(?:he|she|they|you|it|who|people|someone|everyone|some|many|users?)\b\W+(?:\w+\W+){0,2}?"
    r"(?:think|thinks|thought|believed?s?|say|says|said|assumed?s?|claim(?:ed|s)?|ask(?:ed|s)?|hear|heard|told)\b"
    r")[^.,;!?\n]{0,20}$"
    r"|(?:如果|假如|假设|假装|扮演|以为|认为|觉得|说|问|是否|难道|并非|不是|不)[^。！？；，,\n]{0,6}$",
    re.IGNORECASE,
)
"""What stands in front of a clause that only supposes, denies, or reports what somebody else holds."""
_QUOTED = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]*`|“[^”]*”|「[^」]*」|『[^』]*』|\"[^\"\n]*\"|^[ \t]*>[^\n]*$", re.DOTALL | re.MULTILINE
)
"""Code and quotations, in which somebody else speaks."""


def rewritten(text: str, found: Sequence[tuple[str, re.Pattern[str]]], names: dict[str, tuple[str, str]]) -> str:
    """`text` with (name, author) of the pattern's language in place of the models and makers it is said to be of."""
    before = None
    while before != text:  # what one match covered the next round may find; each round leaves fewer of these names
        before = text
        for language, pattern in found:
            text = _once(text, pattern, *names[language])
    return text


def _once(text: str, pattern: re.Pattern[str], name: str, author: str) -> str:
    quoted = [m.span() for m in _QUOTED.finditer(text)]
    pieces, at = [], 0
    for match in pattern.finditer(text):
        start = match.start()
        before = bisect.bisect_left(quoted, (start,)) - 1  # the last quotation that begins before it
        if (before >= 0 and start < quoted[before][1]) or _ASKED.search(text, max(0, start - 60), start):
            continue
        said = [(match.span(group), group) for group, value in match.groupdict().items() if value is not None]
        for (a, b), group in sorted(said):
            pieces += [text[at:a], name if group.startswith("model") else author]
            at = b
    return "".join([*pieces, text[at:]])


def _groups(match: re.Match[str]) -> Iterator[tuple[re.Match[str], str]]:
    return ((match, group) for group, said in match.groupdict().items() if said is not None)
