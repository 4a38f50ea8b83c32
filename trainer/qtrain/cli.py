"""`qtrain RECIPE.toml`, `qtrain chat`, `qtrain export` …: arguments in, one library call, one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from qdata.cli_base import Group
from qdata.errors import QdataError
from qdata.paths import shipped
from qtrain import cli_plan, cli_see

_JSON = click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on stdout.")


class _RecipeFirst(Group):
    """A group whose first argument may be a recipe: `qtrain x.toml` is `qtrain train x.toml`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The verb, or `train` in front of a recipe."""
        if args[0] not in self.commands and (args[0].endswith(".toml") or Path(args[0]).is_file()):
            args = ["train", *args]
        elif args[0] not in self.commands and (guess := _recipes_of(Path(args[0]))):
            raise QdataError(f"{args[0]}: wanted a recipe, such as {' or '.join(guess)}")
        return super().resolve_command(ctx, args)


def _recipes_of(path: Path) -> list[str]:
    """Recipes that a folder, or a recipe's bare name, may have meant."""
    if path.is_dir():
        return [str(file) for file in sorted(path.glob("*.toml"))[:2]]
    return [str(file) for file in (path.with_suffix(".toml"), Path("recipes") / f"{path}.toml") if file.is_file()]


@click.group(cls=_RecipeFirst, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qdata")
def main() -> None:
    """Train a Qwen model on qdata's shards, talk to it, export it.

    \b
    qtrain recipes/muice.toml                      train; the run lies in runs/muice/<date>-<time>/
    qtrain recipes/muice.toml --set train.learning_rate=2e-5
    qtrain plan recipes/muice.toml                 what that would take, before it is started
    qtrain chat runs/muice                         talk to the newest run
    qtrain chat runs/muice --ask "你是谁" --before   ask once, beside the model it started from
    qtrain export runs/muice -o muxue              a plain Hugging Face folder
    qtrain doctor                                  what this machine can train
    qtrain plot runs/muice -o loss.png             losses, of several runs too
    qtrain why runs/muice --step 120               what a step was trained on
    """


@main.command()
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override one key of the recipe.")
@click.option(
    "--strict",
    is_flag=True,
    help="Refuse rows that cannot be read or rendered, instead of setting them aside in the ledger, and a stand-in "
    "model and sample rows, instead of using them loudly.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("runs"), show_default=True,
    help="Where the folder of runs lies.",
)  # fmt: skip
@click.option(
    "--resume",
    is_flag=False,
    flag_value="",
    metavar="[RUN]",
    help="Go on with a run that broke off (default: the newest), or say why that cannot be exact. Without it the "
    "newest run goes on by itself where recipe and rows are as they were.",
)
@click.option("--fresh", is_flag=True, help="Start a new run, also where the newest one broke off.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Train in N processes that share every step: one per GPU, or on the CPU where there is none.",
)
@click.option("--gpus", type=click.IntRange(min=1), metavar="N", help="--processes N, and there must be N GPUs.")
@_JSON
@click.pass_context
def train(
    ctx: click.Context, recipe: Path, overrides: tuple[str, ...], strict: bool, output: Path, resume: str | None,
    fresh: bool, processes: int, gpus: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Train RECIPE: build its shards where missing or stale, train, save everything that belongs together.

    A first SIGTERM or Ctrl-C finishes the step, saves a checkpoint and exits with code 75; the same command goes on
    from there, exactly, and from the last whole checkpoint after a crash. Several processes read the same rows in a
    step as one with as many times the gradient_accumulation_steps; torchrun and accelerate launch work as well.

    \b
    qtrain train recipes/muice.toml --set train.num_train_epochs=1 --set train.tuning=lora
    qtrain recipes/muice.toml --strict --json
    qtrain recipes/muice.toml --resume             go on with the newest run
    qtrain recipes/muice.toml --gpus 2
    """
    if fresh and resume is not None:
        raise click.UsageError("--fresh starts a new run, --resume goes on with one: give one of them")
    from qtrain import recipe as recipes

    loaded = recipes.load(_found(recipe), overrides)
    from qtrain import faults, prepare
    from qtrain import processes as several
    from qtrain import train as road

    how: dict[str, Any] = {"strict": strict, "resume": resume, "fresh": fresh}
    if gpus is not None or processes > 1:
        several.refuse_too_many(gpus or processes, gpus is not None)
    if (gpus or processes) > 1:
        prepare.prepare(loaded, output, _console(), **how)
        # The words as they were given, but for who they are for.
        words = [str(recipe), *(w for o in overrides for w in ("--set", o)), "--output", str(output)]
        words += ["--strict"] * strict + ["--fresh"] * fresh + ["--json"] * as_json
        words += [] if resume is None else [f"--resume={resume}"]
        ctx.exit(several.launch(gpus or processes, ["train", *words]))
    try:
        report = road.train(loaded, output, _console(), **how)
    except faults.InterruptedRunError as stopped:
        if several.rank() == 0:
            click.echo(str(stopped), err=True)
        ctx.exit(faults.INTERRUPTED)
    if several.rank() > 0:
        return
    if as_json:
        _print(report)
        return
    folder, result = report["run"], report["result"]
    losses = ", ".join(f"{name} {result[name]:.3f}" for name in ("loss", "eval_loss") if name in result)
    click.echo(f"trained in {result['seconds']} s: {losses}")
    click.echo(f"shards: {report['shards']}\nrun: {folder}\nmodel: {report['model']}")
    click.echo(f"picture: {folder}/loss.png\nmanifest: {folder}/manifest.json")
    click.echo(f"talk to it: qtrain chat {folder}")


@main.command()
@click.argument("model", metavar="RUN|CHECKPOINT|FOLDER", type=click.Path(path_type=Path))
@click.option("--ask", "questions", multiple=True, metavar="TEXT", help="Ask this and leave; may be given repeatedly.")
@click.option("--before", is_flag=True, help="With --ask: also ask the model the run started from.")
@click.option("--system", metavar="TEXT", help="Send a system message. Default: none, the saved template has its own.")
@click.option(
    "--max-new-tokens", default=256, show_default=True, type=click.IntRange(min=1), help="Length of an answer."
)
@_JSON
def chat(
    model: Path, questions: tuple[str, ...], before: bool, system: str | None, max_new_tokens: int, as_json: bool
) -> None:
    """Talk to a trained model in the terminal, or put questions to it with --ask. Answers are greedy.

    MODEL is a run, a checkpoint in it, a recipe's folder (its newest run) or any Hugging Face model folder.

    \b
    qtrain chat runs/muice
    qtrain chat runs/muice/checkpoint-50 --ask "who are you" --ask "who made you"
    """
    if (before or as_json) and not questions:
        raise click.UsageError("--before and --json go with --ask")
    from qtrain import chat as talking

    after = talking.load(model)
    if not questions:
        talking.talk(after, system, max_new_tokens, Console())
        return
    chats = {"before": talking.before(after), "after": after} if before else {"answer": after}
    rows = talking.ask(chats, questions, system, max_new_tokens)
    if as_json:
        _print({"model": str(after.path), "system": system, "answers": rows})
    else:
        Console().print(talking.table(rows))


@main.command()
@click.argument("model", metavar="RUN|CHECKPOINT|FOLDER", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The new folder.")
@click.option("--max-shard-size", default="5GB", show_default=True, help="Largest safetensors file.")
@_JSON
def export(model: Path, output: Path, max_shard_size: str, as_json: bool) -> None:
    """Write a trained model as a plain Hugging Face folder, LoRA adapters merged into the weights.

    \b
    qtrain export runs/muice -o muxue
    qtrain export runs/muice/checkpoint-50 -o muxue-50 --max-shard-size 2GB
    """
    from qtrain import export as exporting

    report = exporting.export(model, output, max_shard_size=max_shard_size)
    if as_json:
        _print(report)
    else:
        click.echo(f"exported {report['model']} to {report['output']}: {report['parameters']:,} parameters")


@main.command()
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@_JSON
def doctor(recipe: Path | None, as_json: bool) -> None:
    """Say what this machine can train: versions, devices, precisions, attention backends, the hub; and RECIPE on it.

    \b
    qtrain doctor
    qtrain doctor recipes/muice.toml --json
    """
    from qtrain import doctor as checks

    report = checks.look(None if recipe is None else _found(recipe))
    if as_json:
        _print(report)
    else:
        click.echo("\n".join(checks.lines(report)))


def _found(recipe: Path) -> Path:
    """The recipe, or the one of that name that ships with the package, where no checkout lies around us."""
    inside = shipped(recipe.as_posix())
    return inside if not recipe.exists() and recipe.parts[0] == "recipes" and inside.is_file() else recipe


def _console() -> Console:
    # Reports go to stdout, what happens meanwhile to stderr.
    return Console(stderr=True)


def _print(report: Any) -> None:
    click.echo(json.dumps(report, ensure_ascii=False, indent=2))


for _command in (cli_plan.plan, cli_see.plot, cli_see.why):
    main.add_command(_command)

if __name__ == "__main__":
    main()
