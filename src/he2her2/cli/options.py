"""The options that commands share, each once; those that go together are grouped in `option_groups`."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

_BackendName: TypeAlias = Literal["auto", "tiff", "openslide"]
_DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
_PrecisionName: TypeAlias = Literal["full", "mixed"]
AnnotationsUseName: TypeAlias = Literal["intersect", "replace"]
Preset: TypeAlias = Literal["default", "paper", "released-code"]
_PolicyName: TypeAlias = Literal["guideline", "paper"]

What = Annotated[
    list[Path],
    typer.Argument(
        metavar="WHAT...",
        help="Slides, folders (searched below, too), glob patterns or manifests; s3://, gs:// and https:// as well.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Run folder to write.")]
WeightsOption = Annotated[str, typer.Option(help="Weights folder, bundled, or untrained:SEED to try the machinery.")]
Mpp = Annotated[float | None, typer.Option(help="µm per level-0 pixel, over what the file says.", show_default=False)]
PresetName = Annotated[Preset, typer.Option("--preset", help="Settings to start from.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file, over the preset.", show_default=False)]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Over preset and file.", show_default=False)
]
Annotations = Annotated[
    Path | None,
    typer.Option(
        help="QuPath GeoJSON, XML of ASAP, ImageScope, HALO or Sedeen, NDPA, PNG mask; or a folder with one per slide.",
        show_default=False,
    ),
]
AnnotationClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--annotation-class",
        metavar="NAME",
        help="Class of the annotations that is tumour, with those derived from it; may be given again.",
        show_default="by name: tumor, carcinoma, invasive ...",
    ),
]
AnnotationsUseOption = Annotated[
    AnnotationsUseName, typer.Option(help="Limit the tumour that is found, or replace it.")
]
Reader = Annotated[_BackendName, typer.Option("--backend", help="Slide reader.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Worker threads.", show_default="every core")]
RunsOn = Annotated[
    _DeviceName, typer.Option("--device", help="Where the CNNs run; auto takes a GPU where torch has one.")
]
Arithmetic = Annotated[
    _PrecisionName, typer.Option("--precision", help="mixed: a GPU computes in 16 bits where it can.")
]
PolicyOption = Annotated[
    _PolicyName,
    typer.Option("--policy", help="guideline: a 2+ waits for ISH; paper: one that ISH leaves open is positive."),
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]
SlideWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=0,
        help="Worker processes, each at one slide; 0 works on one slide after the other in this process.",
        show_default="one for each core, or GPU",
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Dask scheduler whose workers do the work, in place of processes of this machine.",
        show_default=False,
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="Only the I-th of N parts of the slides, for array jobs.", show_default=False
    ),
]
TimeLimit = Annotated[
    float | None,
    typer.Option(min=0, help="Minutes for a slide, with worker processes; 0 for no limit.", show_default="120"),
]
MemoryLimit = Annotated[
    float | None,
    typer.Option(min=0.1, help="GB of memory for a slide's worker, with worker processes.", show_default="no limit"),
]
Cache = Annotated[
    Path | None,
    typer.Option(help="Folder for slides that are fetched (s3, gs, https).", show_default="one in the run folder"),
]
CacheGb = Annotated[float, typer.Option(min=0.0, help="GB of fetched slides at a time.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try slides again that failed before.")]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Take over a folder with other results.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a stopped training was; begin where none was.")]
OverwriteTraining = Annotated[bool, typer.Option("--overwrite", help="Replace another training in the folder.")]
Accelerator = Annotated[str, typer.Option(help="cpu, gpu, mps, ...; for Lightning.")]
Devices = Annotated[str, typer.Option(help="How many devices, or which; for Lightning.")]
Strategy = Annotated[str, typer.Option(help="Such as ddp; for Lightning.")]
TrainingPrecision = Annotated[str, typer.Option(help="32-true, 16-mixed or bf16-mixed; for Lightning.")]
ReadingProcesses = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that read pixels; 0 reads in the training process.")
]
Licence = Annotated[str, typer.Option(help="Licence of the data, for the card.", show_default="not stated")]
Notice = Annotated[str, typer.Option(help="Said with every result of the weights.", show_default=False)]
