"""`qdata fetch model:ORG/NAME`: into the hub's cache, over HTTP by the real client, and on from where it stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.rows.stand_in_hub import COMMIT, MODEL_ID, Hub, environment, fetch, serving, told

from qdata.rows import catalog

CHUNK = 10 << 20  # the client writes in pieces of this size
WEIGHTS = "model.safetensors"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, whose weights take three pieces; an empty working directory."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    catalog.entries.cache_clear()
    files = {"config.json": b'{"model_type": "qwen2"}', WEIGHTS: bytes(range(256)) * (3 * CHUNK // 256)}
    server = Hub({}, files | {"pytorch_model.bin": b"twice", "onnx/model.onnx": b"twice", "chat_template.jinja": b"{{"})
    with serving(server):
        yield server


def cached() -> Path:
    return Path.cwd().parent / "hf" / "hub" / ("models--" + MODEL_ID.replace("/", "--"))


def snapshot(hub: Hub) -> dict[str, bytes]:
    """What a program without a network finds under the model's name."""
    code = "import sys; from huggingface_hub import hf_hub_download as get\n"
    code += "for name in sys.argv[2:]: print(get(sys.argv[1], name, local_files_only=True))"
    words = [sys.executable, "-c", code, MODEL_ID, *wanted(hub)]
    offline = environment(hub.url) | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=offline)
    (folder,) = cached().glob("snapshots/*")
    found = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    assert sorted(str(folder / name) for name in found) == sorted(done.stdout.split())
    return found


def wanted(hub: Hub) -> dict[str, bytes]:
    return {name: data for name, data in hub.model.items() if not name.endswith((".bin", ".onnx"))}


def test_a_model_arrives_where_it_is_looked_for(hub: Hub) -> None:
    """In the cache, under its name, byte for byte; weights for other frameworks stay away; once is enough."""
    done = fetch(hub.url, f"model:{MODEL_ID}")
    assert done.returncode == 0, done.stderr
    assert COMMIT in done.stderr, "the folder"
    assert snapshot(hub) == wanted(hub)
    words = [sys.executable, "-c", f"from qtrain.model import find; print(find({MODEL_ID!r}))"]
    found = subprocess.run(words, capture_output=True, text=True, check=True, env=environment("http://127.0.0.1:9"))
    assert Path(found.stdout.strip()) == cached() / "snapshots" / COMMIT, "qtrain asks no hub for it"
    hub.seen.clear()
    assert fetch(hub.url, f"model:{MODEL_ID}").returncode == 0
    assert not [path for method, path, _ in hub.seen if method == "GET" and "/resolve/" in path]


def test_a_download_that_was_killed_goes_on(hub: Hub) -> None:
    """Stopped in the middle of the weights: the second run asks for the rest of them with Range, and all is whole."""
    hub.cut[WEIGHTS] = ["stall"]
    words = [sys.executable, "-m", "qdata.cli", "fetch", f"model:{MODEL_ID}"]
    process = subprocess.Popen(words, env=environment(hub.url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(p.stat().st_size >= CHUNK for p in cached().glob("blobs/*.qdata-part")):
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait(30)
    hub.go_on.set()
    assert hub.gets(WEIGHTS) == [None]
    done = fetch(hub.url, f"model:{MODEL_ID}")
    assert done.returncode == 0, done.stderr
    assert hub.gets(WEIGHTS) == [None, f"bytes={CHUNK}-"]
    assert snapshot(hub) == wanted(hub)
    assert not list(cached().glob("blobs/*part")), "nothing half is left"


LARGE = "data/train.jsonl"
DATA = Path("data/align-anything")


@pytest.fixture
def data(hub: Hub) -> bytes:
    """The hub has a data set too, of one file of three pieces and a small one: the bytes of the large one."""
    rows = b"".join(b'{"prompt": "%07d", "response": "r"}\n' % i for i in range(3 * CHUNK // 36))
    hub.files = {LARGE: rows, "README.md": b"# a data set\n"}
    return rows


def test_a_data_set_that_was_killed_goes_on(hub: Hub, data: bytes) -> None:
    """As of a model; what lies in the data set's folder is whole, at any time, and nothing half is left."""
    hub.cut[LARGE] = ["stall"]
    words = [sys.executable, "-m", "qdata.cli", "fetch", "align-anything"]
    process = subprocess.Popen(words, env=environment(hub.url), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while not any(p.stat().st_size >= CHUNK for p in DATA.glob(".cache/qdata/*.qdata-part")):
            assert process.poll() is None, "it ended before it could be stopped"
            time.sleep(0.05)
        assert not (DATA / LARGE).exists()
    finally:
        process.kill()
        process.wait(30)
    hub.go_on.set()
    assert hub.gets(LARGE) == [None]
    assert not (DATA / LARGE).exists()
    done = fetch(hub.url)
    assert done.returncode == 0, done.stderr
    assert hub.gets(LARGE) == [None, f"bytes={CHUNK}-"], "only the rest was sent"
    assert {name: (DATA / name).read_bytes() for name in hub.files} == hub.files
    assert not (DATA / ".cache/qdata").exists()
    hub.seen.clear()
    assert fetch(hub.url).returncode == 0
    assert not [path for _, path, _ in hub.seen if "/resolve/" in path], "what is here is not asked for again"


def test_a_new_version_of_a_large_file_takes_the_place_of_the_old_one(hub: Hub, data: bytes) -> None:
    """The hub's content changed, in length or only in letters: a second fetch brings it."""
    assert fetch(hub.url).returncode == 0
    longer = data + b'{"prompt": "new", "response": "r"}\n'
    for commit, new in (("b", longer), ("c", longer.replace(b"0000001", b"1000000", 1))):
        hub.files[LARGE], hub.commit = new, commit * 40
        assert fetch(hub.url).returncode == 0
        assert (DATA / LARGE).read_bytes() == new


@pytest.mark.parametrize("name", ["../escape.jsonl", "/tmp/escape.jsonl", "a/../../escape.jsonl"])
def test_a_name_that_leads_out_of_the_folder_is_refused(hub: Hub, data: bytes, name: str) -> None:
    """A repository of a stranger must not say where its files land."""
    hub.files[name] = data
    assert "leads out of data/align-anything" in told(fetch(hub.url))
    assert not [p for p in Path.cwd().parent.rglob("*escape*") if p.is_file()]


def test_what_was_kept_is_not_believed(hub: Hub) -> None:
    """A part whose bytes are not the hub's is told and thrown away; the next run starts it anew."""
    assert fetch(hub.url, f"model:{MODEL_ID}").returncode == 0
    (blob,) = (p for p in cached().glob("blobs/*") if p.stat().st_size > CHUNK)
    blob.rename(blob.with_name(blob.name + ".qdata-part"))
    part = next(cached().glob("blobs/*.qdata-part"))
    os.truncate(part, CHUNK)
    with part.open("r+b") as file:
        file.write(b"something else")
    message = told(fetch(hub.url, f"model:{MODEL_ID}"))
    assert "is damaged" in message and "run the same command again" in message
    assert fetch(hub.url, f"model:{MODEL_ID}").returncode == 0
    assert snapshot(hub) == wanted(hub)


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (404, {"X-Error-Code": "RepoNotFound"}, "no such model, or it is private"),
        (401, {}, "hf auth login"),
        (403, {"X-Error-Code": "GatedRepo"}, "the model is gated: accept its terms"),
    ],
)
def test_a_hub_that_refuses_a_model_is_told(hub: Hub, status: int, code: dict[str, str], words: str) -> None:
    """Not there, private or gated: one message with the id and the hub, exit 2."""
    hub.status[f"/api/models/{MODEL_ID}"] = (status, code)
    message = told(fetch(hub.url, f"model:{MODEL_ID}"))
    assert words in message and MODEL_ID in message and hub.url in message


def test_mistakes_are_told_before_any_download(hub: Hub) -> None:
    """A name that is none, a revision that is not there, a hub out of reach, and the prefix forgotten."""
    assert "wanted model:ORG/NAME" in told(fetch(hub.url, "model:a/b/c"))
    hub.status["/revision/v9"] = (404, {"X-Error-Code": "RevisionNotFound"})
    assert "no branch, tag or commit 'v9'" in told(fetch(hub.url, f"model:{MODEL_ID}", "--revision", "v9"))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    assert "cannot be reached" in told(fetch(url, f"model:{MODEL_ID}"))
    assert f"A model is fetched as model:{MODEL_ID}" in told(fetch(hub.url, MODEL_ID))
