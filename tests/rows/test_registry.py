"""LLaMA-Factory's dataset_info.json: read as a catalogue as it is, and written so that it comes back the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner

from qdata import pipeline, plugin
from qdata.cli import main
from qdata.convert import convert
from qdata.errors import QdataError
from qdata.part import process
from qdata.recipe import DataRecipe, Source
from qdata.rows import catalog, formats, register, registry


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; the catalogue is read anew in it."""
    monkeypatch.chdir(tmp_path)
    catalog.entries.cache_clear()
    yield tmp_path
    catalog.entries.cache_clear()


def write(folder: Path, entries: Any, **files: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / registry.NAME).write_text(json.dumps(entries), encoding="utf-8")
    for name, rows in files.items():
        (folder / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return folder / registry.NAME


def said(*sources: Source | str) -> list[Any]:
    """role: content of every turn of every row."""
    recipe = DataRecipe(sources=tuple(Source(path=s) if isinstance(s, str) else s for s in sources))
    _, works = pipeline.works_of(recipe, Path(), Path("cache"), None)
    frame = pl.concat([process(work).conversations() for work in works])
    return [[f"{m['role']}: {m['content']}" for m in messages] for messages in frame["messages"]]


def invoke(*words: str) -> Any:
    return CliRunner().invoke(main, list(words), catch_exceptions=False, env={"COLUMNS": "250"})


ALPACA = [{"instruction": "i", "input": "x", "output": "o", "system": "s", "history": [["a", "b"]]}]


@pytest.mark.parametrize("folder", [".", "data"])
def test_a_registry_in_the_working_directory_is_part_of_the_catalogue(here: Path, folder: str) -> None:
    """As in a checkout of that tool: names alone, of rows beside the registry; `datasets.toml` has the last word."""
    write(Path(folder), {"mine": {"file_name": "rows.json"}}, rows=ALPACA)
    assert said("mine") == [["user: i\nx", "assistant: o"]]
    (one,) = catalog.resolve([Source(path="mine")])
    assert (one.source, one.relative, one.format) == ("mine", "rows.json", "alpaca")
    listed = {line.split()[0]: line for line in invoke("catalog").stdout.splitlines() if line.strip()}
    assert "rows.json" in listed["mine"] and "align-anything" in listed
    catalog.entries.cache_clear()
    Path("datasets.toml").write_text(f'[mine]\npath = "{folder}/rows.json"\n', encoding="utf-8")
    assert said("mine") == [["system: s", "user: a", "assistant: b", "user: i\nx", "assistant: o"]]


def test_any_registry_can_be_named_in_full(here: Path) -> None:
    """`DIR/dataset_info.json:NAME`, from a recipe relative to it; a misspelt name is told with the nearest."""
    write(Path("d/lf"), {"mine": {"file_name": "rows.json"}}, rows=ALPACA)
    assert said("d/lf/dataset_info.json:mine") == said(str(here / "d/lf/dataset_info.json:mine"))
    assert [i.path for i in catalog.resolve([Source(path="lf/dataset_info.json:mine")], Path("d"))] == [
        Path("d/lf/rows.json")
    ]
    with pytest.raises(QdataError, match=r"dataset_info\.json has no such entry. Did you mean 'mine'"):
        said("d/lf/dataset_info.json:mien")
    done = invoke("convert", "d/lf/dataset_info.json:mine", "--to", "messages")
    assert (done.exit_code, Path("data/mine.messages.jsonl").is_file()) == (0, True), done.stderr


def test_only_what_an_entry_names_is_read(here: Path) -> None:
    """`system` and `history` count where `columns` names them, as there; others are kept, under names nobody reads."""
    named = {"prompt": "instruction", "response": "output", "history": "history"}
    write(Path(), {"plain": {"file_name": "r.json"}, "named": {"file_name": "r.json", "columns": named}}, r=ALPACA)
    assert said("plain") == [["user: i\nx", "assistant: o"]]
    assert said("named") == [["user: a", "assistant: b", "user: i", "assistant: o"]]
    convert([Source(path="plain")], "messages", Path("o.jsonl"))
    row = json.loads(Path("o.jsonl").read_text(encoding="utf-8"))
    assert (row["system[]"], row["history"]) == ("s", [["a", "b"]])


def test_columns_are_mapped(here: Path) -> None:
    """Alpaca under other names, also where one of them is a name of ours that means another thing."""
    rows = [{"input": "问", "target": "答", "output": "not this", "kind": "k"}]
    columns = {"prompt": "input", "response": "target"}
    write(Path(), {"firefly": {"file_name": "r.json", "columns": columns}}, r=rows)
    assert said("firefly") == [["user: 问", "assistant: 答"]]


def test_tags_rename_keys_and_roles_inside_messages(here: Path) -> None:
    """Any names for role, content and the roles; what lies in the place of such a name is kept."""
    ours = ("role_tag", "content_tag", "user_tag", "assistant_tag", "observation_tag", "function_tag", "system_tag")
    tags = dict(zip(ours, ("who", "what", "Kunde", "Bot", "Werkzeug", "Ruf", "Regel"), strict=True))
    turns = [("Regel", "s"), ("Kunde", "q"), ("Ruf", '{"name": "f"}'), ("Werkzeug", "r"), ("Bot", "a")]
    rows = [{"talk": [{"who": who, "what": what, "from": "web"} for who, what in turns], "t": "[]"}]
    columns = {"messages": "talk", "tools": "t"}
    write(Path(), {"x": {"file_name": "r.json", "formatting": "sharegpt", "columns": columns, "tags": tags}}, r=rows)
    assert said("x") == [["system: s", "user: q", "assistant: None", "tool: r", "assistant: a"]]
    convert([Source(path="x")], "messages", Path("o.jsonl"))
    messages = json.loads(Path("o.jsonl").read_text(encoding="utf-8"))["messages"]
    assert [m["from[]"] for m in messages] == ["web"] * 5


def test_openai_tags_are_our_messages(here: Path) -> None:
    """Read with tool calls, which are beside the content there; `observation` is the role of a result by default."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    call = [{"name": "f", "arguments": {}}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": None, "tool_calls": call},
                {"role": "observation", "content": "r"},
                {"role": "assistant", "content": "a"},
            ]
        }
    ]
    entry = {"file_name": "r.json", "formatting": "sharegpt", "columns": {"messages": "messages"}}
    write(Path(), {"x": entry | {"tags": tags | {"observation_tag": "observation"}}}, r=rows)
    assert catalog.entries()["x"].format == "messages"
    assert said("x") == [["user: q", "assistant: None", "tool: r", "assistant: a"]]


TALK = [{"who": "Kunde", "what": "q"}]
TAGS = {"role_tag": "who", "content_tag": "what", "user_tag": "Kunde", "assistant_tag": "Bot"}
OPENAI = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
GOOD, BAD = {"who": "Bot", "what": "a"}, {"who": "Bot", "what": "b"}
CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("entry", "row", "dialect", "wanted"),
    [
        ({"ranking": True, "columns": {"prompt": "p", "query": "more", "chosen": "c", "rejected": "r"}},
         {"p": "q", "more": "m", "c": "a", "r": "b", "system": "s"},
         "alpaca_preference", ["q\nm", "a", "b", None, None]),
        ({"ranking": True, "formatting": "sharegpt", "tags": TAGS,
          "columns": {"messages": "talk", "chosen": "c", "rejected": "r", "system": "rule"}},
         {"talk": TALK, "c": GOOD, "r": BAD, "rule": ""}, "sharegpt_preference", ["q", "a", "b", None, None]),
        ({"columns": {"prompt": "p", "response": "r", "kto_tag": "good"}},
         {"p": "q", "r": "a", "good": True, "label": "x"},
         "kto_alpaca", ["q a", None, None, True, None]),
        ({"formatting": "sharegpt", "tags": TAGS, "columns": {"messages": "talk", "kto_tag": "label"}},
         {"talk": [*TALK, GOOD], "label": False}, "kto_sharegpt", ["q a", None, None, False, None]),
        ({"formatting": "sharegpt", "tags": OPENAI, "columns": {"messages": "completion", "kto_tag": "good"}},
         {"completion": CHAT, "good": True, "label": "x"}, "kto_messages", ["q a", None, None, True, None]),
        ({"columns": {"prompt": "content"}}, {"content": "t", "text": "u", "url": "v"},
         "text", [None, None, None, None, "t"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_pairs_judged_answers_and_text(
    here: Path, entry: dict[str, Any], row: dict[str, Any], dialect: str, wanted: list[Any]
) -> None:
    """Rows of every kind, in either layout and under other names; only what the entry names is read."""
    write(Path(), {"x": entry | {"file_name": "r.json"}}, r=[row])
    assert catalog.entries()["x"].format == dialect
    recipe = DataRecipe(sources=(Source(path="x"),))
    _, (work,) = pipeline.works_of(recipe, Path(), Path("cache"), None)
    (made,) = process(work).conversations().to_dicts()
    turns = [made[name] and " ".join(m["content"] for m in made[name]) for name in ("messages", "chosen", "rejected")]
    assert [*turns, made["label"], made["text"]] == wanted


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"ms_hub_url": "a/b"}, "it is on ModelScope only"),
        ({"om_hub_url": "a/b"}, "it is on Modelers only"),
        ({"script_url": "x"}, "it is made by a script"),
        ({"cloud_file_name": "s3://x"}, "it is in a cloud bucket"),
        ({}, "it names neither file_name nor hf_hub_url"),
        ({"file_name": "r", "colums": {}}, "it has keys nobody knows: colums"),
        ({"file_name": "r", "columns": ["prompt"]}, "its columns are not an object of names"),
        ({"file_name": "r", "num_samples": -1}, "its num_samples is -1"),
        ({"file_name": "r", "formatting": "chatml"}, "its formatting is 'chatml'"),
        ({"file_name": "r", "ranking": True}, "its rows are preference pairs (ranking), and it does not name both"),
        ({"file_name": "r", "ranking": True, "columns": {"prompt": "p", "chosen": "c"}}, "does not name both chosen"),
        ({"file_name": "r", "ranking": True, "columns": {"chosen": "c", "rejected": "r"}}, "it names no prompt column"),
        ({"file_name": "r", "ranking": True, "columns": {"messages": "m", "videos": "v"}}, "its rows hold videos"),
        ({"file_name": "r", "columns": {"messages": "m", "images": "i"}}, "its rows hold images; only text is read"),
        ({"file_name": "r", "columns": {"prompt": "p", "kto_tag": "l"}}, "judged answers (kto_tag), and it names no"),
        ({"file_name": "r", "columns": {"prompt": "p", "query": "q"}}, "pretraining text (no response), and it names"),
        ({"file_name": "r", "columns": {"response": "text"}}, "it names no prompt column"),
        ({"file_name": "r", "formatting": "sharegpt", "columns": {"prompt": "text"}}, "it names no messages column"),
    ],
)
def test_what_cannot_be_read_stays_in_the_list_with_its_reason(here: Path, entry: dict[str, Any], reason: str) -> None:
    """It is listed, and refused with the same words when it is asked for."""
    write(Path(), {"odd": entry})
    assert reason in next(line for line in invoke("catalog").stdout.splitlines() if line.strip().startswith("odd"))
    with pytest.raises(QdataError, match="odd: cannot be read: ") as caught:
        said("odd")
    assert reason in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{", '{"a": 1}', '"x"', ""])
def test_what_is_no_registry_is_told(here: Path, text: str) -> None:
    """One message with the file."""
    Path("data").mkdir()
    Path("data/dataset_info.json").write_text(text, encoding="utf-8")
    with pytest.raises(QdataError, match=r"data/dataset_info\.json: not a registry"):
        catalog.entries()


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a#1", ".git", "a\\b"])
def test_a_name_is_no_path(here: Path, name: str) -> None:
    """A registry from elsewhere must not say where a download lands."""
    write(Path(), {name: {"hf_hub_url": "a/b"}})
    with pytest.raises(QdataError, match="wanted a name without / and #"):
        catalog.entries()


def test_a_saved_data_set_is_no_registry(here: Path) -> None:
    """`datasets` writes a dataset_info.json too, beside a state.json; it says what columns there are."""
    Path("state.json").write_text("{}", encoding="utf-8")
    Path("dataset_info.json").write_text('{"features": {}, "x": 1}', encoding="utf-8")
    assert "features" not in catalog.entries()


def test_num_samples_draws(here: Path) -> None:
    """As max_samples, by seed; the rest is in the ledger; an own max_samples goes before it."""
    rows = [{"instruction": f"i{i}", "output": "o"} for i in range(50)]
    write(Path(), {"x": {"file_name": "r.json", "num_samples": 8}}, r=rows)
    done = convert([Source(path="x")], "messages", Path("o.jsonl"))
    assert done.manifest["rows"]["dropped"] == {"max_samples.not_drawn": 42}
    assert convert([Source(path="x", max_samples=3)], "messages", Path("p.jsonl")).manifest["rows"]["kept"] == 3


def test_subset_split_and_folder_choose_files(here: Path) -> None:
    """Of what was fetched: by the README's configs, else by the names of files; what is not there is told."""
    hub = {"hf_hub_url": "a/b"}
    write(
        Path(), {"x": hub, "v": hub | {"split": "validation"}, "s": hub | {"subset": "en"}, "f": hub | {"folder": "d"}}
    )
    for name in "xvsf":
        for file in ("train.json", "valid-0.json", "en/train.json", "d/a.json", "my_test.json"):
            target = Path("data") / name / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(ALPACA), encoding="utf-8")
    files = {name: [i.relative for i in catalog.resolve([Source(path=name)])] for name in "xvsf"}
    assert files["x"] == ["en/train.json", "train.json"]
    assert files["v"] == ["valid-0.json"]
    assert files["s"] == ["en/train.json"]
    assert files["f"] == ["d/a.json"]
    with pytest.raises(QdataError, match="no file of split test_sft; its splits are test, train, validation"):
        write(Path(), {"x": hub | {"split": "test_sft"}})
        catalog.entries.cache_clear()
        catalog.resolve([Source(path="x")])
    card = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: d/*\n---\n"
    Path("data/f/README.md").write_text(card, encoding="utf-8")
    write(Path(), {"f": hub})
    catalog.entries.cache_clear()
    assert [i.relative for i in catalog.resolve([Source(path="f")])] == ["d/a.json"]


def test_a_doubled_name_in_a_map_is_refused_by_its_kind(here: Path) -> None:
    """A column for two of ours is a mistake; `system` as a column and as a role is none."""
    write(Path(), {}, r=[{"q": "x", "a": "y"}])
    with pytest.raises(QdataError, match="map names q for two columns"):
        said(Source(path="r.json", format="alpaca", map={"instruction": "q", "output": "q"}))
    rows = [{"system": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]}]
    write(Path(), {}, r=rows)
    renames = {"messages": "system", "messages[].role.system": "system"}
    assert said(Source(path="r.json", format="messages", map=renames)) == [["system: s", "user: q"]]


def test_the_real_registry(here: Path, real_data: Path) -> None:
    """All 104 entries are there; each is read by a dialect of ours or says why not; all files of text are read."""
    entries = registry.read(real_data / "llamafactory" / "dataset_info.json")
    assert len(entries) == 104
    reasons = Counter(entry.unsupported for entry in entries.values())
    assert all(bool(entry.format) is not bool(entry.unsupported) for entry in entries.values())
    assert reasons[""] > 80
    local = {n: e for n, e in entries.items() if e.path and Path(e.path).exists() and not e.unsupported}
    assert local.keys() == {
        *("identity", "alpaca_en_demo", "alpaca_zh_demo", "glaive_toolcall_en_demo", "glaive_toolcall_zh_demo"),
        *("dpo_en_demo", "dpo_zh_demo", "kto_en_demo", "wiki_demo", "c4_demo"),
    }
    for name, rows in (("identity", 91), ("glaive_toolcall_zh_demo", 300)):
        assert len(said(f"{real_data}/llamafactory/dataset_info.json:{name}")) == rows


SAMPLES: dict[str, list[dict[str, Any]]] = {
    "alpaca": [{"instruction": "i", "input": "", "output": "o", "system": "s", "history": [["a", "b"]]}],
    "pairs": [{"prompt": "p", "response": "r"}],
    "sharegpt": [
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '[{"name":"f"}]'},
                {"from": "observation", "value": "r"},
                {"from": "gpt", "value": "a"},
            ],
            "tools": "[]",
        }
    ],
    "messages": [
        {"messages": [{"role": r, "content": r} for r in ("system", "user", "assistant", "tool", "assistant")]},
        {"messages": [{"role": r, "content": r} for r in ("user", "assistant")], "system": "beside"},
    ],
}


@pytest.mark.parametrize("dialect", SAMPLES)
def test_what_is_written_comes_back(here: Path, dialect: str) -> None:
    """`qdata catalog --dataset-info OUT FILE`: through the entry the rows say what they say without it."""
    Path("data").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in SAMPLES[dialect])
    Path("data/mine.jsonl").write_text(lines, encoding="utf-8")
    done = invoke("catalog", "--dataset-info", "lf/dataset_info.json", "data/mine.jsonl")
    assert done.exit_code == 0, done.stderr
    entry = json.loads(Path("lf/dataset_info.json").read_text(encoding="utf-8"))["mine"]
    assert (Path("lf") / entry["file_name"]).resolve() == Path("data/mine.jsonl").resolve()
    assert catalog.resolve([Source(path="lf/dataset_info.json:mine")])[0].format in (dialect, "alpaca")
    assert said("lf/dataset_info.json:mine") == said("data/mine.jsonl")


PAIRED = ("alpaca_preference", "alpaca_rejected", "preference", "sharegpt_preference")
JUDGED = ("kto", "kto_alpaca", "kto_sharegpt", "kto_messages")


def content(source: str) -> list[Any]:
    """All that the rows say."""
    recipe = DataRecipe(sources=(Source(path=source),))
    _, works = pipeline.works_of(recipe, Path(), Path("cache"), None)
    frame = pl.concat([process(work).conversations() for work in works])
    return frame.select("messages", "tools", "chosen", "rejected", "label").to_dicts()


@pytest.mark.parametrize("dialect", [*PAIRED, *JUDGED, "completion", "conversations"])
def test_pairs_and_verdicts_come_back(here: Path, dialect: str) -> None:
    """As entries with ranking or kto_tag; read through them, the rows say the same."""
    rows = [dict(row) for row in plugin.find(formats, dialect).sample]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = invoke("catalog", "--dataset-info", "dataset_info.json", "mine.jsonl")
    assert done.exit_code == 0, done.stderr
    entry = json.loads(Path("dataset_info.json").read_text(encoding="utf-8"))["mine"]
    assert (entry.get("ranking", False), "kto_tag" in entry["columns"]) == (dialect in PAIRED, dialect in JUDGED)
    catalog.entries.cache_clear()
    assert content("dataset_info.json:mine") == content("mine.jsonl") != []


@pytest.mark.parametrize(
    ("dialect", "row", "told"),
    [
        ("kto", {"prompt": "q", "completion": "a", "label": 1}, "wants true or false in one column of all rows"),
        ("sharegpt", {"conversations": [{"from": "User", "value": "q"}]}, "knows no role 'User', only human, gpt"),
        ("orca_preference", {"question": "q"}, "convert it first: qdata convert x.jsonl --to sharegpt_pref"),
        ("messages", {"messages": [{"role": "developer", "content": "s"}]}, "does not see tool_calls"),
    ],
)  # fmt: skip
def test_what_that_tool_would_misread_is_refused(dialect: str, row: dict[str, Any], told: str) -> None:
    """A verdict that is no JSON boolean is passed over there, and the bad answer trained."""
    with pytest.raises(QdataError, match=told):
        register.entry_of(Path("x.jsonl"), dialect, [row], Path())


def test_entries_are_added_to_those_that_are_there(here: Path) -> None:
    """The file keeps what it has; a name that stands for another file is refused, and so is a file that is none."""
    file = write(Path(), {"other": {"hf_hub_url": "a/b", "ranking": True}}, mine=SAMPLES["pairs"])
    for _ in range(2):
        assert invoke("catalog", "--dataset-info", str(file), "mine.json").exit_code == 0
    held = json.loads(file.read_text(encoding="utf-8"))
    assert list(held) == ["other", "mine"] and held["other"] == {"hf_hub_url": "a/b", "ranking": True}
    Path("d").mkdir()
    Path("d/other.json").write_text(json.dumps(SAMPLES["pairs"]), encoding="utf-8")
    done = invoke("catalog", "--dataset-info", str(file), "d/other.json")
    assert (done.exit_code, "other stands for" in done.stderr) == (2, True)
    Path("list.json").write_text("[]", encoding="utf-8")
    assert invoke("catalog", "--dataset-info", "list.json", "mine.json").exit_code == 2
    assert Path("list.json").read_text(encoding="utf-8") == "[]"


@pytest.mark.parametrize(
    ("dialect", "row", "message"),
    [
        ("messages", {"messages": [{"role": "assistant", "tool_calls": [{"name": "f"}]}]}, "does not see tool_calls"),
        ("messages", {"messages": [], "tools": [{"name": "f"}]}, "wants tools as JSON text"),
        ("messages", {"messages": [{"role": "assistant", "function_call": {"name": "f"}}]}, "does not see tool_calls"),
        ("messages", {"messages": [{"role": "assistant", "reasoning": "r"}]}, "does not see tool_calls and reasoning"),
        ("messages", {"messages": [{"role": "function", "content": "1"}]}, "does not see tool_calls"),
        ("messages", {"messages": [], "functions": [{"name": "f"}]}, "wants tools where this has functions"),
        ("moss", {}, "reads no moss"),
    ],
)
def test_what_would_be_read_wrongly_is_refused(dialect: str, row: dict[str, Any], message: str) -> None:
    """With the command that makes a file it reads."""
    with pytest.raises(QdataError, match=message) as caught:
        register.entry_of(Path("x.jsonl"), dialect, [row], Path())
    assert "qdata convert x.jsonl --to sharegpt" in str(caught.value)
