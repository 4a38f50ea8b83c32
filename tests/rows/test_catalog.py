"""From a path or a name to files, without the network; and `fetch`, the one command that asks a hub."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.rows.stand_in_hub import COMMIT, HUB_ID, Hub, fetch, serving, told

from qdata.cli import main
from qdata.errors import QdataError
from qdata.paths import tails
from qdata.recipe import Source
from qdata.rows import catalog


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; the catalogue is read anew in it."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    catalog.entries.cache_clear()
    yield folder
    catalog.entries.cache_clear()


def make(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text('{"prompt": "q", "response": "a"}\n', encoding="utf-8")


def found(*sources: Source | str) -> list[str]:
    """What the sources stand for, as row ids begin: `source/relative`."""
    made = catalog.resolve([Source(path=s) if isinstance(s, str) else s for s in sources])
    assert all(one.path.is_file() for one in made)
    return [f"{one.source}/{one.relative}" for one in made]


def refused(*sources: Source | str) -> str:
    with pytest.raises(QdataError) as caught:
        found(*sources)
    return str(caught.value)


def test_files_folders_and_globs(here: Path) -> None:
    """The source is named after the folder, the rest of the id is the path below it; files are sorted."""
    make("muice/b.jsonl", "muice/a.jsonl", "muice/deep/c.json", "x.jsonl")
    assert found("muice/b.jsonl") == ["muice/b.jsonl"]
    assert found("muice") == found("muice/") == found("./muice") == found(str(here / "muice"))
    assert found("muice") == ["muice/a.jsonl", "muice/b.jsonl", "muice/deep/c.json"]
    assert found("muice/*.jsonl") == ["muice/a.jsonl", "muice/b.jsonl"]
    assert found("x.jsonl", "muice/a.jsonl") == ["work/x.jsonl", "muice/a.jsonl"]


def test_a_source_can_be_named(here: Path) -> None:
    """A name of one's own replaces the folder's, and holds nothing that parts row ids."""
    make("d/a.jsonl")
    assert found(Source(path="d", name="mine")) == ["mine/a.jsonl"]
    for name in ("a/b", "a#1"):
        assert "wanted one without / and #" in refused(Source(path="d", name=name))


def test_paths_start_at_the_recipe(here: Path) -> None:
    """Relative paths are relative to `base`, so that a recipe can be used from anywhere."""
    make("recipes/d/a.jsonl")
    assert [i.path for i in catalog.resolve([Source(path="d")], Path("recipes"))] == [Path("recipes/d/a.jsonl")]


def test_two_files_of_one_name_get_two_ids(here: Path) -> None:
    """Where source and relative path clash, more of the path goes into the id: row ids are unique."""
    make("en/data/t.jsonl", "zh/data/t.jsonl", "zh/data/u.jsonl")
    ids = found("en/data", "zh/data")
    assert len(set(ids)) == 3
    assert "data/u.jsonl" in ids, "the one that does not clash keeps its short id"
    assert [i for i in ids if i.endswith("t.jsonl")] == ["data/en/data/t.jsonl", "data/zh/data/t.jsonl"]


def test_ids_do_not_say_where_the_files_lie(here: Path) -> None:
    """The same files elsewhere have the same ids; and more of the path is taken only as far as it tells them apart."""
    for place in ("x", "some/other/place"):
        make(*(f"{place}/{name}" for name in ("a/train.jsonl", "b/train.jsonl", "c/deep/train.jsonl")))
        named = [Source(path=f"{place}/{one}", name="s") for one in ("a/train.jsonl", "b", "c")]
        assert found(*named) == ["s/a/train.jsonl", "s/b/train.jsonl", "s/deep/train.jsonl"]


@pytest.mark.parametrize(
    ("paths", "taken", "wanted"),
    [
        (["/x/a/t.jsonl", "/x/b/t.jsonl"], [], ["a/t.jsonl", "b/t.jsonl"]),
        (["/x/d/t.jsonl", "/y/d/t.jsonl", "/y/e/t.jsonl"], [], ["x/d/t.jsonl", "y/d/t.jsonl", "y/e/t.jsonl"]),
        (["/x/a/t.jsonl", "/x/b/t.jsonl"], ["a/t.jsonl"], ["x/a/t.jsonl", "x/b/t.jsonl"]),
        (["/t.jsonl", "/a/t.jsonl"], [], ["t.jsonl", "a/t.jsonl"]),
        (["/t.jsonl", "/a/t.jsonl", "/b/a/t.jsonl"], [], ["t.jsonl", "a/t.jsonl", "b/a/t.jsonl"]),
    ],
)
def test_the_shortest_tails(paths: list[str], taken: list[str], wanted: list[str]) -> None:
    """As many parts as it takes, and none that another file has."""
    assert tails([PurePosixPath(path) for path in paths], taken) == wanted
    with pytest.raises(QdataError, match="name one of the two sources"):
        tails([PurePosixPath(path) for path in paths], [paths[0][at + 1 :] for at in _slashes(paths[0])])


def _slashes(path: str) -> list[int]:
    return [at for at, letter in enumerate(path) if letter == "/"]


SEGMENTS = st.lists(st.sampled_from("abc"), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(st.lists(SEGMENTS, min_size=2, max_size=5, unique_by=tuple))
def test_tails_tell_paths_apart(paths: list[list[str]]) -> None:
    """Each is an end of its path, no two are alike, and one part less would not do."""
    names = tails([PurePosixPath("/", *path) for path in paths])
    assert len(set(names)) == len(names)
    assert all("/".join(path).endswith(name) for path, name in zip(paths, names, strict=True))
    longest = max(name.count("/") for name in names)
    assert len({tuple(path[-longest:]) for path in paths}) < len(paths) or longest == 0


@pytest.mark.parametrize(
    "sources", [("d/a.jsonl", "d/a.jsonl"), ("d", "d/a.jsonl"), ("d/*.jsonl", "d"), ("d/../d/a.jsonl", "d")]
)
def test_a_file_given_twice_is_refused(here: Path, sources: tuple[str, ...]) -> None:
    """By whatever road it comes the second time: its rows would be trained twice."""
    make("d/a.jsonl")
    assert "d/a.jsonl: given twice" in refused(*sources)


def test_a_link_is_the_file_it_points_to(here: Path) -> None:
    """A symbolic link to a file that is there already is the same rows."""
    make("d/a.jsonl")
    Path("d/b.jsonl").symlink_to("a.jsonl")
    assert "given twice" in refused("d")


def test_files_of_a_folder_can_be_picked(here: Path) -> None:
    """`files=` takes names and globs, in their order, each file once; a misspelt one is told with the nearest."""
    make("d/train.jsonl", "d/z.jsonl", "d/deep/x.jsonl")
    assert found(Source(path="d", files=("train.jsonl",))) == ["d/train.jsonl"]
    assert found(Source(path="d", files=("train.jsonl", "*.jsonl"))) == ["d/train.jsonl", "d/z.jsonl"]
    assert found(Source(path="d", files=("deep/x.jsonl",))) == ["d/deep/x.jsonl"]
    assert found(Source(path="d", files=("**/x.jsonl",))) == ["d/deep/x.jsonl"]
    message = refused(Source(path="d", files=("trian.jsonl",)))
    assert message.startswith("d/trian.jsonl: no such file. Did you mean 'train.jsonl'")


def test_what_is_not_there_is_told(here: Path) -> None:
    """A path as a path, a word with the nearest data set, file or folder; an empty folder with what we read."""
    make("rows/a.jsonl")
    Path("empty").mkdir()
    assert refused("gone/a.jsonl") == "gone/a.jsonl: no such file or folder"
    assert refused("gone.jsonl") == "gone.jsonl: no such file or folder"
    assert "align-anythin: no such file, folder or catalogue entry. Did you mean 'align-anything'?" in (
        refused("align-anythin")
    )
    assert "Did you mean 'rows'?" in refused("rwos")
    assert refused("empty").startswith("empty: wanted files ending in .")


def test_a_name_is_the_data_set_or_its_sample(here: Path) -> None:
    """Without data/NAME the sample that ships with us, and it says so; with it, that folder."""
    (one,) = catalog.resolve([Source(path="align-anything")])
    assert (one.source, one.relative, one.format, one.sample) == ("align-anything", "sample.jsonl", "pairs", True)
    assert len(one.path.read_text(encoding="utf-8").splitlines()) >= 64
    make("data/align-anything/full.jsonl", "data/align-anything/.cache/huggingface/x.json")
    (one,) = catalog.resolve([Source(path="align-anything")])
    assert (one.source, one.relative, one.format, one.sample) == ("align-anything", "full.jsonl", "pairs", False)


def test_a_sample_is_a_sample_by_any_road(here: Path) -> None:
    """Also when its file is named by its path, or through a link."""
    (named,) = catalog.resolve([Source(path=str(catalog.SAMPLES / "align-anything"))])
    Path("mine.jsonl").symlink_to(named.path)
    (linked,) = catalog.resolve([Source(path="mine.jsonl")])
    assert named.sample and linked.sample


def test_what_lies_here_comes_before_the_catalogue(here: Path) -> None:
    """A file or folder of a data set's name is that file or folder."""
    make("align-anything/own.jsonl")
    assert found("align-anything") == ["align-anything/own.jsonl"]


def test_the_working_directory_adds_data_sets(here: Path) -> None:
    """`datasets.toml` adds entries and overrides ours; its mistakes are told by file and address."""
    Path("datasets.toml").write_text(
        '[mine]\nhub = "me/mine"\nfiles = ["b.jsonl"]\nformat = "pairs"\n[muice]\nhub = "me/muice"\n', encoding="utf-8"
    )
    make("data/mine/a.jsonl", "data/mine/b.jsonl")
    assert found("mine") == ["mine/b.jsonl"]
    assert refused("muice") == "muice: not downloaded yet, and it has no sample. Run: qdata fetch muice"
    assert "align-anything" in catalog.entries()
    catalog.entries.cache_clear()
    Path("datasets.toml").write_text('[mine]\nhbu = "me/mine"\n', encoding="utf-8")
    assert "datasets.toml: mine.hbu: no such key. Did you mean 'hub'?" in refused("mine")


def test_a_broken_catalogue_is_told(here: Path) -> None:
    """A `datasets.toml` that is no TOML is bad input too: the file and the line, no traceback."""
    Path("datasets.toml").write_text("[mine\n", encoding="utf-8")
    assert "datasets.toml" in refused("mine")


def test_the_catalogue_can_be_listed(here: Path) -> None:
    """`qdata catalog` names every data set, its hub id, and whether it is here or only its sample."""
    assert "align-anything" in catalog.entries() and "muice" in catalog.entries()
    make("data/muice/train.jsonl")
    done = CliRunner().invoke(main, ["catalog"], catch_exceptions=False, env={"COLUMNS": "200"})
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert HUB_ID in lines["align-anything"] and " sample " in lines["align-anything"]
    assert " data/muice " in lines["muice"]


def test_convert_never_touches_the_network(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where it says how to get the full set, it opens no socket and looks up no name."""

    def network(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was touched")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, network)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    done = CliRunner().invoke(main, ["convert", "align-anything", "--to", "alpaca"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "SAMPLE" in done.stderr and "qdata fetch align-anything" in done.stderr


@pytest.fixture
def hub(here: Path) -> Iterator[Hub]:
    """The stand-in, in a thread that ends with the test."""
    rows = [{"prompt": f"问题{i}", "response": f"回答{i}" * 200} for i in range(300)]
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    server = Hub({"README.md": b"# a data set\n", "data/train.jsonl": data, "data/valid.jsonl": data[: len(data) // 3]})
    server.files["data/valid.jsonl"] = server.files["data/valid.jsonl"].rpartition(b"\n")[0] + b"\n"
    with serving(server):
        yield server


def convert() -> Any:
    done = CliRunner().invoke(main, ["convert", "align-anything", "--to", "alpaca", "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), done.stderr


def arrived(hub: Hub) -> bool:
    folder = Path("data/align-anything")
    return all((folder / name).read_bytes() == data for name, data in hub.files.items())


def test_fetch_brings_the_files_and_convert_reads_them(hub: Hub) -> None:
    """Everything of the repository arrives byte for byte; from then on it is the data set, not the sample."""
    assert convert()[0]["sample"] is True
    done = fetch(hub.url)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert "data/align-anything" in done.stderr
    assert arrived(hub)
    manifest, report = convert()
    assert "SAMPLE" not in report
    assert manifest["sample"] is False
    assert [i["relative"] for i in manifest["inputs"]] == ["data/train.jsonl"]
    assert "not read: data/align-anything/data/valid.jsonl (1 file for validation" in report
    assert manifest["rows"]["in"] == hub.files["data/train.jsonl"].count(b"\n")
    before = len(hub.seen)
    assert fetch(hub.url).returncode == 0
    assert not [path for _, path, _ in hub.seen[before:] if "/resolve/" in path], "what is here is not asked for again"


def test_only_the_files_of_an_entry_are_fetched(hub: Hub) -> None:
    """A repository may be a thousand times what is wanted of it; its README comes along."""
    Path("datasets.toml").write_text(f'[mine]\nhub = "{HUB_ID}"\nfiles = ["data/v*.jsonl"]\n', encoding="utf-8")
    done = fetch(hub.url, "mine")
    assert done.returncode == 0, done.stderr
    here = {p.relative_to("data/mine").as_posix() for p in Path("data/mine").rglob("*") if p.is_file()}
    assert {name for name in here if not name.startswith(".")} == {"README.md", "data/valid.jsonl"}
    assert found("mine") == ["mine/data/valid.jsonl"]


def test_an_entry_of_any_registry_is_fetched(hub: Hub) -> None:
    """Under its own name, as the message says that tells it is not here; its split is then what is read."""
    Path("lf").mkdir()
    Path("lf/dataset_info.json").write_text(json.dumps({"zh": {"hf_hub_url": HUB_ID, "split": "validation"}}))
    word = "lf/dataset_info.json:zh"
    assert refused(word) == f"zh: not downloaded yet, and it has no sample. Run: qdata fetch {word}"
    assert fetch(hub.url, word).returncode == 0
    assert found(word) == ["zh/data/valid.jsonl"]


def test_what_has_no_hub_is_told(here: Path) -> None:
    """An entry of a local file, or of a place we do not ask."""
    entries = {"local": {"file_name": "x.json"}, "far": {"ms_hub_url": "a/b"}}
    Path("dataset_info.json").write_text(json.dumps(entries), encoding="utf-8")
    assert "there is nothing to fetch: its rows are in x.json" in told(fetch("http://127.0.0.1:9", "local"))
    assert "there is nothing to fetch: it is on ModelScope only" in told(fetch("http://127.0.0.1:9", "far"))


def test_a_broken_connection_goes_on_where_it_broke(hub: Hub) -> None:
    """Half a file, then silence: the rest is asked for with Range, and the file is whole."""
    chunk = 10 << 20  # huggingface_hub writes in pieces of this size; what it has not written it asks for again
    hub.files["data/train.jsonl"] = bytes(range(256)) * (3 * chunk // 256)
    hub.cut["data/train.jsonl"] = ["close"]
    done = fetch(hub.url)
    assert done.returncode == 0, done.stderr
    assert arrived(hub)
    assert hub.gets("data/train.jsonl") == [None, f"bytes={chunk}-"]


def test_an_interrupted_download_goes_on(hub: Hub) -> None:
    """One file refused: exit 2; the same command again asks only for what is missing, and the set is whole."""
    hub.status["GET /datasets/" + HUB_ID + f"/resolve/{COMMIT}/data/train.jsonl"] = (403, {})
    assert "run the same command again" in told(fetch(hub.url))
    assert not Path("data/align-anything/data/train.jsonl").exists()
    assert Path("data/align-anything/data/valid.jsonl").is_file(), "what had arrived is kept"
    hub.status.clear()
    hub.seen.clear()
    assert fetch(hub.url).returncode == 0
    assert arrived(hub)
    assert hub.gets("data/valid.jsonl") == []
    assert hub.gets("data/train.jsonl") == [None]


def test_half_a_data_set_is_not_taken_for_the_whole(hub: Hub) -> None:
    """After an interrupted download convert must not read the files that happen to be here as if they were all."""
    hub.status["GET /datasets/" + HUB_ID + f"/resolve/{COMMIT}/data/train.jsonl"] = (403, {})
    told(fetch(hub.url))
    done = CliRunner().invoke(main, ["convert", "align-anything", "--to", "alpaca", "-o", "o.jsonl"])
    assert (done.exit_code, Path("o.jsonl").exists()) == (2, False)
    assert "data/align-anything: its download was not finished. Finish it: qdata fetch align-anything" in done.stderr
    assert "not finished" in refused("data/align-anything/data/valid.jsonl"), "by whatever road"
    hub.status.clear()
    assert fetch(hub.url).returncode == 0
    assert convert()[0]["sample"] is False


@pytest.mark.parametrize(
    ("status", "code", "wanted"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, "no such data set, or it is private"),
        (401, {}, "hf auth login"),
        (403, {"X-Error-Code": "GatedRepo"}, "the data set is gated: accept its terms"),
    ],
)
def test_a_hub_that_refuses_is_told(hub: Hub, status: int, code: dict[str, str], wanted: str) -> None:
    """Not there, private or gated: one message with the id and the hub, exit 2, and the sample still serves."""
    hub.status[f"/api/datasets/{HUB_ID}"] = (status, code)
    message = told(fetch(hub.url))
    assert wanted in message
    assert HUB_ID in message and hub.url in message
    assert not Path("data/align-anything").exists()
    assert convert()[0]["sample"] is True


def test_a_revision_that_is_not_there_is_told(hub: Hub) -> None:
    """A misspelt --revision is not blamed on the connection."""
    hub.status["/revision/v9"] = (404, {"X-Error-Code": "RevisionNotFound"})
    message = told(fetch(hub.url, "align-anything", "--revision", "v9"))
    assert "v9" in message
    assert "cannot be reached" not in message


def test_a_connection_that_is_reset_is_told(hub: Hub) -> None:
    """A reset in the middle of a file: one message, no traceback; the next run completes the set."""
    hub.cut["data/train.jsonl"] = ["reset"]
    told(fetch(hub.url))
    assert fetch(hub.url).returncode == 0
    assert arrived(hub)


def test_a_hub_out_of_reach_is_told(here: Path) -> None:
    """Nobody listens: one message with the address, exit 2, nothing left behind."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    message = told(fetch(url))
    assert "cannot be reached" in message and url in message
    assert not Path("data").exists()


def test_a_hub_out_of_reach_is_no_success(here: Path) -> None:
    """With a few files here already, a hub that does not answer must not look like a finished download."""
    make("data/align-anything/one-of-many.jsonl")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert "cannot be reached" in told(fetch(url))
    assert Path("data/align-anything/one-of-many.jsonl").is_file()


def test_a_misspelt_data_set_is_told(here: Path) -> None:
    """Before any hub is asked."""
    message = told(fetch("http://127.0.0.1:9", "align-anythng"))
    assert "align-anythng: no such catalogue entry. Did you mean 'align-anything'?" in message
