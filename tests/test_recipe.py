"""A recipe means what it says: every mistake at once with its address, nothing converted in silence."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qdata import plugin
from qdata.errors import QdataError, did_you_mean
from qdata.recipe import DataRecipe, Loss, Source, help_of, read_toml, refuse, structure
from qdata.rows import global_steps, steps

GOLDEN = Path(__file__).parent / "golden"


def golden(request: pytest.FixtureRequest, name: str, text: str) -> None:
    """Compares `text` with the file `name` below tests/golden; with --accept writes it."""
    file = GOLDEN / name
    if request.config.getoption("--accept"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{file} differs; if the new text is meant: pytest --accept"


def load(path: Path, *overrides: str) -> DataRecipe:
    """`[data]` of a recipe file, the way every command loads it."""
    mistakes: list[str] = []
    data = structure(DataRecipe, read_toml(path, overrides).get("data", {}), "data", mistakes)
    refuse(path, mistakes)
    assert data is not None
    return data


def mistakes_of(table: dict[str, Any]) -> list[str]:
    mistakes: list[str] = []
    structure(DataRecipe, table, "data", mistakes)
    return mistakes


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sound recipe; the current directory is its folder."""
    monkeypatch.chdir(tmp_path)
    Path("sound.toml").write_text(
        '[data]\nsources = ["a.jsonl", { path = "b", files = ["c.jsonl"], format = "alpaca" }]\nval = 0.1\n'
        'placeholders = { name = "沐雪", author = { zh = "萌", en = "Moemu" } }\nsteps = [{ step = "strip" }]\n',
        encoding="utf-8",
    )
    return Path("sound.toml")


def test_a_sound_recipe_is_what_it_says(recipe: Path) -> None:
    """Values arrive as they stand, the rest are defaults, and a bare string is a source's path."""
    data = load(recipe)
    assert data.sources == (Source(path="a.jsonl"), Source(path="b", files=("c.jsonl",), format="alpaca"))
    assert data.placeholders == {"name": "沐雪", "author": {"zh": "萌", "en": "Moemu"}}
    assert (data.val, data.steps, data.template) == (0.1, ({"step": "strip"},), "qwen2")
    assert data == dataclasses.replace(DataRecipe(), sources=data.sources, placeholders=data.placeholders, val=0.1,
                                       steps=data.steps)  # fmt: skip


def test_all_mistakes_are_told_at_once(recipe: Path, request: pytest.FixtureRequest) -> None:
    """One error lists every mistake of the file with its address and what was meant."""
    recipe.write_text(
        """
[data]
sauces = ["a.jsonl"]
sources = ["good.jsonl", { pth = "b.jsonl" }, 7, { path = "c.jsonl", files = "all", map = { prompt = 3 } }]
val = "some"
loss = "assistent"
pack = 2048.5
max_length = true
seed = "0"
template = ["qwen2"]
placeholders = { name = 5 }
steps = "strip"
""",
        encoding="utf-8",
    )
    with pytest.raises(QdataError) as caught:
        load(recipe)
    golden(request, "recipe/mistakes.txt", f"{caught.value}\n")
    told = str(caught.value).splitlines()
    assert told[0] == "sound.toml: 14 mistakes"
    assert len(told) == 15
    addresses = ("sauces", "sources[1].pth", "sources[1].path", "sources[2]", "sources[3].files", "sources[3].map",
                 "val", "loss", "pack", "max_length", "seed", "template", "placeholders", "steps")  # fmt: skip
    for address in addresses:
        assert any(line.startswith(f"  data.{address}") for line in told), address


def test_the_nearest_key_is_named(recipe: Path) -> None:
    """An unknown key is refused with the nearest one that is known, or with all that are."""
    recipe.write_text('[data]\ntemplat = "qwen2"\nzzz = 1\n', encoding="utf-8")
    with pytest.raises(QdataError) as caught:
        load(recipe)
    told = str(caught.value)
    assert "data.templat: no such key. Did you mean 'template'?" in told
    assert "data.zzz: no such key. Known: default_system, expand, global_steps, loss, " in told


NOT_CONVERTED = [
    ("seed", '"1"'),
    ("seed", "1.0"),
    ("seed", "true"),
    ("seed", "[1]"),
    ("template", "1"),
    ("template", "true"),
    ("template", '["qwen2"]'),
    ("template", "1979-05-27"),
    ("val", '"0.1"'),
    ("val", "true"),
    ("val", "[0.1]"),
    ("pack", '"2048"'),
    ("pack", "2048.0"),
    ("pack", "false"),
    ("loss", '"Assistant"'),
    ("loss", "true"),
    ("sources", '"abc"'),
    ("sources", "{ path = 'a' }"),
    ("sources", "[1]"),
    ("sources", "[['a']]"),
    ("sources", "[{ path = 1 }]"),
    ("sources", "[{ path = 'a', files = 'abc' }]"),
    ("sources", "[{ path = 'a', map = 'abc' }]"),
    ("sources", "[{ path = 'a', map = ['a'] }]"),
    ("sources", "[{ path = 'a', map = { prompt = 1 } }]"),
    ("steps", '"strip"'),
    ("steps", '["strip"]'),
    ("placeholders", '"name"'),
    ("placeholders", "{ name = 1 }"),
    ("placeholders", "{ name = true }"),
    ("placeholders", "{ name = { zh = 1 } }"),
    ("placeholders", "{ name = ['a'] }"),
]


@pytest.mark.parametrize(("key", "value"), NOT_CONVERTED, ids=[f"{k}={v}" for k, v in NOT_CONVERTED])
def test_nothing_is_converted_in_silence(recipe: Path, key: str, value: str) -> None:
    """Text is not a number, a number is not text, true is not 1, "abc" is no array: one mistake with the address."""
    recipe.write_text(f"[data]\n{key} = {value}\n", encoding="utf-8")
    with pytest.raises(
        QdataError, match=rf"(?s)^sound\.toml: 1 mistake\n  data\.{key}[^:\n]*: .*(wanted|is not one of)"
    ):
        load(recipe)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0]) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)
FIELDS = [f.name for f in dataclasses.fields(DataRecipe) if f.name not in ("sources", "validation")]


def listed(value: Any) -> Any:
    """Arrays as lists, whatever holds them, each value beside its type: True is not 1 here."""
    if isinstance(value, (list, tuple)):
        return [listed(v) for v in value]
    return {k: listed(v) for k, v in value.items()} if isinstance(value, dict) else (type(value), value)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(FIELDS), JSON)
def test_a_value_arrives_as_it_is_or_not_at_all(key: str, value: Any) -> None:
    """Whatever the value: it is taken unchanged, or it is a mistake at its address."""
    mistakes: list[str] = []
    data = structure(DataRecipe, {key: value}, "data", mistakes)
    if data is None:
        assert mistakes and all(m.startswith(f"data.{key}") for m in mistakes)
    else:
        assert not mistakes
        assert listed(getattr(data, key)) == listed(value)


OVERRIDES: list[tuple[str, str, Any]] = [
    ("data.seed=7", "seed", 7),
    ("data.val=0.25", "val", 0.25),
    ("data.val=12", "val", 12),
    ("data.template=qwen2_5", "template", "qwen2_5"),
    ('data.template="qwen2_5"', "template", "qwen2_5"),
    ("data.template = qwen2_5 ", "template", "qwen2_5"),
    ("data.tokenizer=../tokenizers/qwen2_5", "tokenizer", "../tokenizers/qwen2_5"),
    ("data.tokenizer=Qwen/Qwen2.5-7B", "tokenizer", "Qwen/Qwen2.5-7B"),
    ("data.default_system=你是 A=B 的助手", "default_system", "你是 A=B 的助手"),
    ("data.default_system=", "default_system", ""),
    ("data.placeholders.name=Muxue", "placeholders", {"name": "Muxue", "author": {"zh": "萌", "en": "Moemu"}}),
    ("data.placeholders.author.en=M", "placeholders", {"name": "沐雪", "author": {"zh": "萌", "en": "M"}}),
    ('data.sources=["x.jsonl"]', "sources", (Source(path="x.jsonl"),)),
    ("data.steps=[]", "steps", ()),
]


@pytest.mark.parametrize(("override", "key", "value"), OVERRIDES, ids=[o[0] for o in OVERRIDES])
def test_an_override_replaces_one_value(recipe: Path, override: str, key: str, value: Any) -> None:
    """`--set table.key=value` is read as TOML, a bare word as text; everything else stays as in the file."""
    assert load(recipe, override) == dataclasses.replace(load(recipe), **{key: value})


def test_later_overrides_win_and_make_tables(recipe: Path) -> None:
    """Overrides are applied in order; a table that the file has not is made."""
    assert load(recipe, "data.seed=1", "data.seed=2").seed == 2
    recipe.write_text("", encoding="utf-8")
    assert load(recipe, "data.placeholders.name=x").placeholders == {"name": "x"}


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("data.seed", "wanted table.key=value"),
        ("seed=1", "wanted table.key=value"),
        ("data.=1", "wanted table.key=value"),
        ("=1", "wanted table.key=value"),
        ("data.seed.deep=1", "seed is a value, not a table"),
        ("data.sources.path=x", "sources is a value, not a table"),
        ("data.sed=1", "data.sed: no such key. Did you mean 'seed'?"),
        ("data.seed=true", "data.seed: wanted a whole number, got true"),
        ("data.seed=one", "data.seed: wanted a whole number, got 'one'"),
    ],
)
def test_a_wrong_override_is_told(recipe: Path, override: str, wanted: str) -> None:
    """An override that cannot be placed is refused, and its value is checked like the file's."""
    if "seed.deep" in override:
        recipe.write_text("[data]\nseed = 1\n", encoding="utf-8")
    with pytest.raises(QdataError) as caught:
        load(recipe, override)
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"[data\nseed = 1\n", "not valid TOML: .*line 1"),
        (b"[data]\nseed = no\n", "not valid TOML: .*line 2"),
        (b"[data]\nseed = 1\nseed = 2\n", "not valid TOML"),
        ("[data]\ntemplate = 'é'\n".encode("latin-1"), "not a TOML text file"),
    ],
)
def test_a_broken_file_is_told(recipe: Path, content: bytes, wanted: str) -> None:
    """Broken TOML names file and line; a bare `no` is no false."""
    recipe.write_bytes(content)
    with pytest.raises(QdataError, match=rf"^sound\.toml: {wanted}"):
        read_toml(recipe)


def test_a_missing_file_is_told(recipe: Path) -> None:
    """With the nearest recipe in that folder; a folder is no recipe."""
    with pytest.raises(QdataError, match=r"^sond\.toml: no such recipe\. Did you mean 'sound\.toml'\?$"):
        read_toml(Path("sond.toml"))
    with pytest.raises(QdataError, match=r"^nowhere/x\.toml: no such recipe\.$"):
        read_toml(Path("nowhere/x.toml"))
    with pytest.raises(QdataError, match="not a TOML text file"):
        read_toml(Path())


def test_what_is_no_table_is_told() -> None:
    """`data = 1` is one mistake, at the table's own address."""
    mistakes: list[str] = []
    assert structure(DataRecipe, 1, "data", mistakes) is None  # type: ignore[arg-type]
    assert mistakes == ["data: wanted a table, got 1"]
    assert mistakes_of({"seed": 1}) == []


def test_every_field_explains_itself() -> None:
    """A field, its default and its sentence stand together: no field of a recipe or a step is without help."""
    classes = [Source, DataRecipe, *(plugin.find(p, name) for p in (steps, global_steps) for name in plugin.names(p))]
    assert {f.name for cls in classes for f in dataclasses.fields(cls)} >= {"path", "loss", "values"}
    for cls in classes:
        for field in dataclasses.fields(cls):
            assert len(help_of(cls, field.name)) > 10, f"{cls.__name__}.{field.name}"
            assert not help_of(cls, field.name).endswith("."), "a phrase, not a sentence: it stands in --help"


def test_near_and_far_words() -> None:
    """At most two near misses are named; far from all, the whole list; with nothing known, nothing."""
    assert did_you_mean("assistent", get_args(Loss)) == " Did you mean 'assistant'?"
    assert did_you_mean("zzz", ["b", "a"]) == " Known: a, b."
    assert did_you_mean("x", []) == ""
