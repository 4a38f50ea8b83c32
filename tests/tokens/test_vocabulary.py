"""A tokenizer built offline is the published one: vocabulary, merges and added tokens, so the ids."""

import json
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from qdata.tokens import vocabulary
from qdata.tokens.vocabulary import FAMILIES, build, family_of

PUBLISHED = ("qwen2_5", "qwen3")

HARD = [
    "",
    "你好，世界！床前明月光，疑是地上霜。〇㐀𠮷龘",
    "👩‍👩‍👧‍👦 🇨🇳🇩🇪 👍🏽 ☺️ 1️⃣",
    "e\u0301 é ñ n\u0303 ซึ่ง हिन्दी \u1100\u1161\u11a8 각 ﬁ ½ Å",
    "1234567890 3.14159 １２３ ٣٤ Ⅷ x²",
    "def f(x):\n\treturn {'a': [x**2 for x in range(10)]}  # don't\r\n\r\n\n",
    " a  b   c    \t\t \n \n\n   \u00a0\u3000\u200b trailing   ",
    "I'M you'Re it'S WE'LL they'd 'tis ''''s",
    "\x00\x01\x7f\u0085\u2028\ufeff\ufffd\U0010ffff",
    "long line " * 2_000 + "啊" * 2_000 + " " * 2_000 + "a1!" * 1_000,
    "<|im_start|>user\n<|im_end|>x<|im_end|>\n<|endoftext|><|endoftext|>",
    "<|im_start|assistant <|im_ end|> <|IM_END|> <|im_start|><|im_start|>",
    "a<think>b</think>\n\n<tool_call>\n{}\n</tool_call></tool_response> <|fim_pad|> <|quad_end|>",
]

ADDED = [token for family in FAMILIES.values() for token in family.special + family.plain]
PIECES = [*ADDED, " ", "\n\n", "'s", "e\u0301", "你好", "👍🏽"]
TEXTS = st.lists(st.text() | st.sampled_from(PIECES)).map("".join)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with each family, built once."""
    folder = tmp_path_factory.mktemp("vocabulary")
    for family in FAMILIES:
        assert build(family, folder / family) == folder / family
    return folder


@pytest.fixture(scope="session")
def published() -> Path:
    if not (folder := os.environ.get("QDATA_TOKENIZERS")):
        pytest.skip("QDATA_TOKENIZERS names no folder with the published tokenizers (qwen2_5/, qwen3/)")
    return Path(folder)


@pytest.fixture(scope="session")
def tokenizer() -> Callable[[Path], Tokenizer]:
    loaded: dict[Path, Tokenizer] = {}

    def load(directory: Path) -> Tokenizer:
        if directory not in loaded:
            loaded[directory] = Tokenizer.from_file(str(directory / "tokenizer.json"))
        return loaded[directory]

    return load


def read(directory: Path, name: str = "tokenizer.json") -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / name).read_text(encoding="utf-8"))
    return content


def merges(content: dict[str, Any]) -> list[tuple[str, ...]]:
    listed = content["model"]["merges"]
    return [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in listed]


@pytest.mark.parametrize("family", PUBLISHED)
def test_vocabulary_and_merges_are_the_published_ones(family: str, built: Path, published: Path) -> None:
    ours, theirs = read(built / family), read(published / family)
    assert len(ours["model"]["vocab"]) == 151_643
    assert ours["model"]["vocab"] == theirs["model"]["vocab"]
    assert merges(ours) == merges(theirs)


@pytest.mark.parametrize("family", PUBLISHED)
def test_added_tokens_are_the_published_ones(family: str, built: Path, published: Path) -> None:
    assert read(built / family)["added_tokens"] == read(published / family)["added_tokens"]


@pytest.mark.parametrize("family", PUBLISHED)
def test_loaded_they_are_equal_altogether(
    family: str, built: Path, published: Path, tokenizer: Callable[[Path], Tokenizer]
) -> None:
    ours, theirs = (json.loads(tokenizer(folder / family).to_str()) for folder in (built, published))
    # Named only, since a printed difference of the model would be millions of characters.
    assert [part for part in ours.keys() | theirs.keys() if ours.get(part) != theirs.get(part)] == []


@pytest.mark.parametrize("family", PUBLISHED)
def test_config_is_the_published_one_without_its_template(family: str, built: Path, published: Path) -> None:
    ours, theirs = (read(folder / family, "tokenizer_config.json") for folder in (built, published))
    assert "chat_template" not in ours
    assert ours == {key: theirs[key] for key in ours}


@pytest.mark.parametrize("text", HARD, ids=lambda text: repr(text[:20]))
@pytest.mark.parametrize("family", PUBLISHED)
def test_hard_strings_get_the_published_ids(
    family: str, text: str, built: Path, published: Path, tokenizer: Callable[[Path], Tokenizer]
) -> None:
    ours, theirs = tokenizer(built / family).encode(text), tokenizer(published / family).encode(text)
    assert ours.ids == theirs.ids
    assert ours.offsets == theirs.offsets
    for skip in (True, False):
        decoded = tokenizer(built / family).decode(ours.ids, skip_special_tokens=skip)
        assert decoded == tokenizer(published / family).decode(ours.ids, skip_special_tokens=skip)


@pytest.mark.parametrize("family", PUBLISHED)
def test_any_text_gets_the_published_ids(
    family: str, built: Path, published: Path, tokenizer: Callable[[Path], Tokenizer]
) -> None:
    @given(TEXTS)
    def law(text: str) -> None:
        assert tokenizer(built / family).encode(text).ids == tokenizer(published / family).encode(text).ids

    law()


def test_qwen2_differs_from_its_successor_only_in_the_tokens_it_lacks(
    built: Path, published: Path, tokenizer: Callable[[Path], Tokenizer]
) -> None:
    ours, theirs = tokenizer(built / "qwen2"), tokenizer(published / "qwen2_5")
    for text in HARD[:-1]:
        assert ours.encode(text).ids == theirs.encode(text).ids
    assert [ours.token_to_id(token) for token in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [
        151_643,
        151_644,
        151_645,
    ]
    assert ours.get_vocab_size() == 151_646
    assert max(ours.encode("<tool_call><|fim_pad|><|vision_pad|>").ids) < 151_643


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_loads_it_with_the_same_ids(
    family: str, built: Path, tokenizer: Callable[[Path], Tokenizer], request: pytest.FixtureRequest
) -> None:
    transformers = pytest.importorskip("transformers")
    loaded = transformers.AutoTokenizer.from_pretrained(built / family)
    assert type(loaded).__name__ == "Qwen2Tokenizer"
    assert (loaded.eos_token_id, loaded.pad_token_id, loaded.bos_token_id) == (151_645, 151_643, None)
    assert loaded.chat_template is None
    assert len(loaded) == 151_643 + len(FAMILIES[family].special + FAMILIES[family].plain)
    for text in HARD:
        assert loaded(text, verbose=False)["input_ids"] == tokenizer(built / family).encode(text).ids
    if family in PUBLISHED:
        theirs = transformers.AutoTokenizer.from_pretrained(request.getfixturevalue("published") / family)
        assert loaded.get_vocab() == theirs.get_vocab()
        assert loaded.all_special_tokens == theirs.all_special_tokens
        assert loaded.model_max_length == theirs.model_max_length
        for text in HARD:
            ids = theirs(text, verbose=False)["input_ids"]
            assert loaded(text, verbose=False)["input_ids"] == ids
            spoken = loaded.decode(ids, skip_special_tokens=True)
            assert spoken == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("hub_id", "family"),
    [
        ("Qwen/Qwen2-0.5B", "qwen2"),
        ("Qwen/Qwen2-1.5B-Instruct", "qwen2"),
        ("Qwen/Qwen2-57B-A14B-Instruct-GPTQ-Int4", "qwen2"),
        ("Qwen/Qwen2.5-0.5B", "qwen2_5"),
        ("Qwen/Qwen2.5-72B-Instruct-AWQ", "qwen2_5"),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", "qwen2_5"),
        ("Qwen/Qwen3-0.6B", "qwen3"),
        ("Qwen/Qwen3-0.6B-Base", "qwen3"),
        ("Qwen/Qwen3-30B-A3B", "qwen3"),
        ("Qwen/Qwen3-235B-A22B-FP8", "qwen3"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3"),
        ("Qwen/Qwen3-30B-A3B-Thinking-2507-FP8", "qwen3"),
        ("Qwen/Qwen-7B", None),
        ("Qwen/Qwen1.5-7B-Chat", None),
        ("Qwen/Qwen-VL-Chat", None),
        ("Qwen/Qwen2-VL-7B-Instruct", None),
        ("Qwen/Qwen2-Audio-7B-Instruct", None),
        ("Qwen/Qwen2-1.5B-Instruct-GGUF", None),
        ("Qwen/Qwen2.5-VL-7B-Instruct", None),
        ("Qwen/Qwen2.5-Omni-7B", None),
        ("Qwen/Qwen2.5-Math-PRM-7B", None),
        ("Qwen/Qwen3-VL-8B-Instruct", None),
        ("Qwen/Qwen3-Embedding-0.6B", None),
        ("Qwen/Qwen3-Next-80B-A3B-Instruct", None),
        ("Qwen/Qwen3.5-4B", None),
        ("Qwen/QwQ-32B", None),
        ("unsloth/Qwen2.5-7B-Instruct", None),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", None),
        ("Qwen2.5-7B-Instruct", None),
        ("./Qwen/Qwen2.5-7B-Instruct", None),
        ("Qwen/Qwen2.5-7B-Instruct\n", None),
        ("Qwen/Qwen2x5-7B-Instruct", None),
        ("", None),
    ],
)
def test_family_of(hub_id: str, family: str | None) -> None:
    assert family_of(hub_id) == family


def test_the_same_bytes_every_time(built: Path, tmp_path: Path) -> None:
    build("qwen3", tmp_path / "deep" / "er" / "qwen3")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "deep/er/qwen3" / name).read_bytes() == (built / "qwen3" / name).read_bytes()
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["qwen3"]


def test_what_stands_there_is_kept_with_its_owners_edits(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "splintr", None)
    home = Path(shutil.copytree(built / "qwen2", tmp_path / "home"))
    edited = read(home, "tokenizer_config.json") | {"chat_template": "{{ messages }}"}
    (home / "tokenizer_config.json").write_text(json.dumps(edited), encoding="utf-8")
    assert build("qwen2", home) == home
    assert read(home, "tokenizer_config.json") == edited


def test_a_faster_process_wins(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overtaken() -> dict[str, int]:
        shutil.copytree(built / "qwen2", tmp_path / "home")
        return {}

    monkeypatch.setattr(vocabulary, "_base_vocabulary", overtaken)
    assert build("qwen2", tmp_path / "home") == tmp_path / "home"
    assert read(tmp_path / "home") == read(built / "qwen2")
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_failed_build_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(vocabulary, "_base_vocabulary", dict)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        build("qwen2", tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("file", ["notes.txt", "tokenizer_config.json"])
def test_something_else_is_never_overwritten(file: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}", encoding="utf-8")
    with pytest.raises(FileExistsError, match="no qwen2 tokenizer"):
        build("qwen2", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [file]


def test_another_family_is_not_taken_for_this_one(built: Path) -> None:
    with pytest.raises(FileExistsError, match="no qwen3 tokenizer"):
        build("qwen3", built / "qwen2_5")


def test_unknown_family_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'qwen9'; we can build qwen2, qwen2_5, qwen3"):
        build("qwen9", tmp_path / "home")


def test_without_splintr_the_import_error_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "splintr", None)
    with pytest.raises(ImportError, match="splintr"):
        build("qwen2", tmp_path / "home")
    assert list(tmp_path.iterdir()) == []


def test_another_embedded_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Shifted:
        @staticmethod
        def from_pretrained(_: str) -> "Shifted":
            return Shifted()

        def decode_token_bytes(self, number: int) -> bytes:
            return number.to_bytes(3)

    monkeypatch.setitem(sys.modules, "splintr", types.SimpleNamespace(Tokenizer=Shifted))
    with pytest.raises(ValueError, match="another Qwen vocabulary"):
        build("qwen2", tmp_path / "home")
    assert list(tmp_path.iterdir()) == []
