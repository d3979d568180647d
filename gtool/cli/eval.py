"""`gtool eval`: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gtool.cli.options import Device, Json

EXAMPLES = """Examples:

`gtool eval` : the newest run against its own data set, by rfd and swd, which need no download

`gtool eval --fid` : FID of the newest run, 10,000 images, clean-fid's protocol

`gtool eval runs/transgan-cifar10-000 --fid --kid --num 50000` : the published convention for CIFAR-10

`gtool eval samples/ photos/ --kid --json` : two folders

`gtool eval --attention` : a table of scores beside four baselines, and a sheet of pictures

`gtool eval runs/vqgan-scenes-000 --reconstruction` : of a tokenizer, or of that in a prior; held-out images

`gtool eval runs/prior-scenes-000 --map-agreement` : with a ceiling and a baseline

`gtool eval samples/ --reference cifar10 --split test --rfd`

`gtool eval --reference cifar10 --resolution 32 --export-reference cifar10.npz` : statistics alone, for later scores

`gtool eval painted/ originals/ --paired` : PSNR, SSIM and L1, picture by picture

`gtool eval RUN --max fid=20 --max kid=0.01:warn -o result.json -o junit.xml -o report.html` : gates for pipelines

`gtool eval RUN --baseline main.json --max-regress fid=5%` : no worse than an earlier result"""
OUTPUTS = "`.json`, `.jsonl` (adds a line), `.xml` (JUnit), `.md` or `.html`"


def evaluate(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="A run, weights, or a folder of images; the newest run when left out. A folder may be followed by "
            "one to compare it with."
        ),
    ] = None,
    fid: Annotated[
        bool, typer.Option("--fid", help="Frechet Inception distance; needs Inception weights.")
    ] = False,
    kid: Annotated[
        bool, typer.Option("--kid", help="Kernel Inception distance; unbiased, for few images.")
    ] = False,
    inception_score: Annotated[
        bool, typer.Option("--is", help="Inception score: sure and varied classes; needs no reference.")
    ] = False,
    pr: Annotated[
        bool, typer.Option("--pr", help="Precision and recall: who lies among the other set's nearest 3.")
    ] = False,
    density: Annotated[
        bool, typer.Option("--density", help="Density and coverage: the same of 5, robust to outliers.")
    ] = False,
    infinity: Annotated[
        bool,
        typer.Option("--fid-infinity", help="FID of endless images, from 10,000 or more, by their trend."),
    ] = False,
    clip_fid: Annotated[
        bool,
        typer.Option("--clip-fid", help="FID of CLIP's features, which know more than ImageNet's classes."),
    ] = False,
    rfd: Annotated[
        bool, typer.Option("--rfd", help="Frechet distance of random features; needs no weights.")
    ] = False,
    swd: Annotated[
        bool, typer.Option("--swd", help="Sliced Wasserstein distance of patches; needs none.")
    ] = False,
    attention: Annotated[
        bool,
        typer.Option(
            "--attention", help="How far attention finds the objects of built-in scenes; needs none."
        ),
    ] = False,
    reconstruction: Annotated[
        bool,
        typer.Option(
            "--reconstruction",
            help="How near a tokenizer's pictures are to the originals, and which codes it uses.",
        ),
    ] = False,
    map_agreement: Annotated[
        bool,
        typer.Option("--map-agreement", help="How far pictures of scenes show what their label maps say."),
    ] = False,
    paired: Annotated[
        bool,
        typer.Option(
            "--paired", help="PSNR, SSIM and L1 of pictures that have the same name in two folders."
        ),
    ] = False,
    lpips_vgg: Annotated[
        Path | None, typer.Option(help="VGG16 of torchvision: adds LPIPS to --paired.")
    ] = None,
    lpips_heads: Annotated[Path | None, typer.Option(help="The linear heads that LPIPS needs too.")] = None,
    num: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Images on each side; default 2000, with --fid or --kid 10000, --attention up to 1000, "
            "--map-agreement 256, folders: all.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            help="What is real: a data set's name, a folder, statistics (.npz, or `clean-fid:cifar10-32-train`); "
            "default the run's own data."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the reference; default that of the training.")
    ] = None,
    mode: Annotated[
        str, typer.Option(help="Of Inception: `clean`, `legacy_tensorflow` or `legacy_pytorch`.")
    ] = "clean",
    weights: Annotated[Path | None, typer.Option(help="File with the Inception weights.")] = None,
    clip_weights: Annotated[
        Path | None, typer.Option(help="File with the weights of CLIP ViT-B/32, for --clip-fid.")
    ] = None,
    preview: Annotated[
        bool, typer.Option("--preview", help="Networks in bf16: faster, and comparable with nothing.")
    ] = False,
    resolution: Annotated[
        int | None, typer.Option(min=16, help="Crop and resize folders to so many pixels.")
    ] = None,
    num_processes: Annotated[int | None, typer.Option(min=1, help="Score by so many processes.")] = None,
    export_reference: Annotated[
        Path | None,
        typer.Option(
            help="Also write mu and sigma of the reference to this .npz; without anything to score, only that."
        ),
    ] = None,
    fit: Annotated[
        bool, typer.Option("--fit", help="Squeeze images that are not square, where the crop is the default.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse folders with files that are no images.")
    ] = False,
    skip_bad: Annotated[int, typer.Option(min=0, help="Leave out up to so many unreadable images.")] = 0,
    seed: Annotated[int, typer.Option(help="Chooses the latents and the subsets.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per forward; changes no result.")] = 32,
    device: Device = "auto",
    precision: Annotated[str, typer.Option(help="Of the generator: `auto`, `bf16` or `fp32`.")] = "auto",
    output: Annotated[
        list[Path] | None,
        typer.Option(
            "--output",
            "-o",
            help=f"Write the result too, by suffix: {OUTPUTS}; repeatable.",
        ),
    ] = None,
    maximum: Annotated[
        list[str] | None,
        typer.Option("--max", metavar="METRIC=X", help="Gate: `fid=20`, or `fid=20:warn`; repeatable."),
    ] = None,
    minimum: Annotated[
        list[str] | None,
        typer.Option("--min", metavar="METRIC=X", help="Gate: `recall=0.3`; repeatable."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="An earlier result (.json, or the last of .jsonl) to compare with.")
    ] = None,
    max_regress: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=X",
            help="Gate: how much worse than the baseline, `fid=5%` or `fid=0.3`; repeatable.",
        ),
    ] = None,
    exit_zero: Annotated[
        bool, typer.Option("--exit-zero", help="Report gates that are not met, and end with 0 all the same.")
    ] = False,
    gitlab_metrics: Annotated[
        Path | None, typer.Option(help="Write `name value` lines, for GitLab's metrics report.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Score images: FID and KID by clean-fid's protocol, or rfd and swd, which work offline.

    A gate asks for its metric by itself. The exit status is 4 when a gate is not met.
    """
    from gtool.errors import RecipeError
    from gtool.eval.options import Request
    from gtool.eval.report.outputs import Demands
    from gtool.eval.run import evaluate as run_evaluate

    flags = {"fid": fid, "kid": kid, "is": inception_score, "pr": pr, "density": density}
    flags |= {"fid_infinity": infinity, "clip_fid": clip_fid, "rfd": rfd, "swd": swd}
    named = targets or []
    if len(named) > 2:
        raise RecipeError(f"{named[2]}: a third target; two are compared")
    request = Request(
        target=named[0] if named else None,
        other=named[1] if len(named) > 1 else None,
        metrics=tuple(name for name, wanted in flags.items() if wanted),
        attention=attention,
        reconstruction=reconstruction,
        map_agreement=map_agreement,
        paired=paired,
        lpips_vgg=lpips_vgg,
        lpips_heads=lpips_heads,
        num=num,
        reference=reference,
        split=split,
        mode=mode,
        weights=weights,
        clip_weights=clip_weights,
        preview=preview,
        resolution=resolution,
        num_processes=num_processes,
        export_reference=export_reference,
        fit=fit,
        strict=strict,
        skip_bad=skip_bad,
        seed=seed,
        batch_size=batch_size,
        device=device,
        precision=precision,
        as_json=as_json,
        demands=Demands(
            maxima=tuple(maximum or ()),
            minima=tuple(minimum or ()),
            regressions=tuple(max_regress or ()),
            baseline=baseline,
            exit_zero=exit_zero,
            outputs=tuple(output or []),
            gitlab_metrics=gitlab_metrics,
        ),
    )
    run_evaluate(request)
