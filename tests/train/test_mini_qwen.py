"""The three stages of mini_qwen on rows of the published data sets, on the stand-in: pt → sft → dpo.

The files lie where `qdata fetch` puts them, and the recipes are those a user runs. Changed are the epochs, to those of
the original (1, 3 and 3), and the sources: one subject of ten is here, and other text beside it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from tests.train.rehearsal import answered, first_loss, obeys, rises, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU no stand-in is trained"),
]


def subjects(more: Path) -> str:
    """`[data] sources` of the pretraining: the subject that is there, with encyclopedia articles and poems."""
    text = ", ".join(
        f'{{ path = "{more / name}", documents = "paragraphs", max_samples = {rows} }}'
        for name, rows in (("wikitext2_valid.txt", 200), ("quantangshi.txt", 300))
    )
    return f'[{{ path = "industry-corpus", files = ["*/*/high/*.parquet"] }}, {text}]'


def of_pairs(split: str) -> str:
    """`[data] sources` or `validation` of the preference pairs."""
    return f'[{{ path = "infinity-preference", files = ["data/{split}-*.parquet"] }}]'


@pytest.fixture
def fetched(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the data sets in data/ as `qdata fetch` lays them out."""
    monkeypatch.chdir(tmp_path)
    theirs = {"pt": "industry-corpus", "sft": "infinity-instruct", "dpo": "infinity-preference/data"}
    for part, ours in theirs.items():
        shutil.copytree(real_data / "mini_qwen" / part, tmp_path / "data" / ours, copy_function=shutil.copyfile)
    return tmp_path


def test_three_stages_on_published_rows(fetched: Path, real_data: Path) -> None:
    epochs = "stand_in.train.num_train_epochs={}"
    pt = run("mini-qwen-pt", f"data.sources={subjects(real_data / 'pretrain')}", epochs.format(1))
    obeys(pt, sample=False)

    sft = run("mini-qwen-sft", epochs.format(3))
    obeys(sft, sample=False)
    logged, pretrained = first_loss(sft, pt.folder / "final")
    _, random = first_loss(sft, pt.folder / "base")
    assert logged == pytest.approx(pretrained, rel=1e-4), "training did not begin with the pretrained weights"
    assert pretrained < random - 0.5, "on other text than it has read"

    dpo = run(
        "mini-qwen-dpo",
        f"data.sources={of_pairs('train')}",
        f"data.validation={of_pairs('test')}",
        epochs.format(3),
        "stand_in.train.logging_steps=1",
        "train.eval_strategy=epoch",
    )
    obeys(dpo, sample=False)
    margins, held_out = dpo.logged("rewards/margins"), dpo.logged("eval_rewards/margins")
    assert margins[0] == pytest.approx(0, abs=1e-4), "the first step is taken by the reference itself"
    assert rises(margins) > 0.1
    # A stand-in that has seen 40 pairs prefers those; of others it knows nothing, and nothing is asked of it.
    print(f"first step of sft: {pretrained:.2f} pretrained, {random:.2f} random")
    print(f"margins: {rises(margins):+.3f} on the training pairs, {held_out[-1]:+.3f} on held-out ones")

    for one in (pt, sft, dpo):
        answered(one)
