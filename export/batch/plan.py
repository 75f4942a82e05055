"""The plan: a YAML file with checkpoints, engines, batch profiles and gates, read into one job for each bundle."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from bundle import BatchProfile, Precision
from bundle.manifest import StrictModel
from export.bundles.projection import Reduction
from export.bundles.targets import FLOAT32, TARGETS, MeasurementSettings, Target, full_label
from export.cli.tensorrt import parse_batch_profile
from export.errors import BuildError, PlanError
from export.parity.gates import DEFAULTS, Gates
from export.tensorrt.library import EXTRAS, LibraryName, rtx_target_problem
from training.config import unknown_name
from training.precision import full_precision_name

COMPILED: dict[str, tuple[LibraryName, Precision]] = {
    f"{library}:{precision}": (library, precision) for library in EXTRAS for precision in ("float32", "float16", "int8")
}
EXPLAIN = "explain"  # the label of the explain graph; other labels are engines
DEFAULT_BATCH = BatchProfile(min=1, opt=8, max=64)


def _engine(label: str) -> str:
    known = [*TARGETS, *COMPILED]
    if full_label(label) not in known:
        raise ValueError(unknown_name(label, known))
    return full_label(label)


def _profile(text: object) -> BatchProfile:
    if not isinstance(text, str):
        raise ValueError('not MIN:OPT:MAX, such as "1:8:64"')
    try:
        profile = parse_batch_profile(text)
    except BuildError:
        raise ValueError(f"{text!r} is not MIN:OPT:MAX, three whole numbers from 1, such as 1:8:64") from None
    if not profile.min <= (profile.opt or 0) <= (profile.max or 0):
        raise ValueError(f"{text!r} does not rise; give MIN:OPT:MAX, such as 1:8:64")
    return profile


def _rtx_target(text: str) -> str:
    if why := rtx_target_problem(text):
        raise ValueError(why)
    return text


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


Engine = Annotated[str, AfterValidator(_engine)]
Profile = Annotated[BatchProfile, BeforeValidator(_profile)]
RtxTarget = Annotated[str, AfterValidator(_rtx_target)]


class GateChange(StrictModel):
    """Gates of a precision that differ from `export.parity.gates.DEFAULTS`."""

    min_cosine: float | None = Field(default=None, ge=0, le=1)
    min_consistency: float | None = Field(default=None, ge=0, le=1)
    max_mAP_loss: float | None = Field(default=None, ge=0)


class Model(StrictModel):
    """One checkpoint. Values that it leaves out are those of the plan."""

    checkpoint: Path
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.+-]*$", description="the bundle's folder")
    dim: int | None = Field(default=None, ge=1)
    whiten: bool = False
    explain: bool = False
    data: Path | None = None
    engines: tuple[Engine, ...] | None = None
    batch: Annotated[tuple[Profile, ...], BeforeValidator(_one_or_more), Field(min_length=1)] | None = None
    compute_capability: RtxTarget | None = Field(default=None, description="the one target of TensorRT-RTX engines")

    @model_validator(mode="after")
    def _whitens_a_projection(self) -> Self:
        if self.whiten and self.dim is None:
            raise ValueError("whiten applies to the projection of dim; set dim too")
        return self

    @property
    def called(self) -> str:
        """The bundle's name: `name`, or the folder of the checkpoint."""
        path = self.checkpoint
        return self.name or (path.parent if path.suffix == ".safetensors" else path).name


class Plan(StrictModel):
    """The content of the file. Relative paths start at its folder."""

    out: Path
    data: Path | None = None
    engines: tuple[Engine, ...] = ()
    batch: Annotated[tuple[Profile, ...], BeforeValidator(_one_or_more), Field(min_length=1)] = (DEFAULT_BATCH,)
    compute_capability: RtxTarget | None = Field(default=None, description="the one target of TensorRT-RTX engines")
    gates: dict[Annotated[Precision, BeforeValidator(full_precision_name)], GateChange] = Field(default_factory=dict)
    images: int = Field(default=64, ge=2)
    ranked: int = Field(default=2000, ge=2)
    calibration: int = Field(default=128, ge=8)
    models: tuple[Model, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One bundle to make from one checkpoint, with one batch profile for its TensorRT engines."""

    folder: Path
    checkpoint: Path
    targets: tuple[Target, ...]  # besides float32
    compiled: tuple[str, ...]  # labels in COMPILED
    batch: BatchProfile
    compute_capability: str | None  # of TensorRT-RTX engines; None: all default targets
    explain: bool
    reduction: Reduction | None
    measuring: MeasurementSettings

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def labels(self) -> list[str]:
        """The engines of the bundle, in the order in which they are made."""
        maps = [EXPLAIN] if self.explain else []
        return [FLOAT32.label, *maps, *(target.label for target in self.targets), *self.compiled]


def read_plan(path: Path) -> tuple[Path, list[Job]]:
    """The output folder and the bundles to make. Raises PlanError with line and key of each mistake."""
    given, lines = _read(path)
    try:
        plan = Plan.model_validate(given)
    except ValidationError as error:
        raise PlanError("; ".join(_explain(path, lines, issue) for issue in error.errors())) from None
    jobs = [job for model in plan.models for job in _jobs(plan, model, path.resolve().parent)]
    for index, model in enumerate(plan.models):
        where = f"{path} line {lines['models', index]}, models.{index}"
        if model.dim is not None and model.data is None and plan.data is None:
            raise PlanError(f"{where}: dim is fitted to training crops; set data to the data set of the training")
        if not model.called:
            raise PlanError(f"{where}: the checkpoint has no folder to name the bundle after; set name")
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"{path}: two bundles would have the name {', '.join(twice)}; set name for each model")
    return path.resolve().parent / plan.out, jobs


def _jobs(plan: Plan, model: Model, base: Path) -> list[Job]:
    labels = dict.fromkeys(plan.engines if model.engines is None else model.engines)
    compiled = tuple(label for label in labels if label in COMPILED)
    # a service uses one engine per kind and precision of a bundle, so each profile gets its own bundle
    profiles = tuple(dict.fromkeys(model.batch or plan.batch)) if compiled else (DEFAULT_BATCH,)
    data = model.data or plan.data
    job = Job(
        folder=base / plan.out / model.called,
        checkpoint=base / model.checkpoint,
        targets=tuple(TARGETS[label] for label in labels if label in TARGETS and label != FLOAT32.label),
        compiled=compiled,
        batch=profiles[0],
        compute_capability=model.compute_capability or plan.compute_capability,
        explain=model.explain,
        reduction=Reduction(model.dim, model.whiten) if model.dim else None,
        measuring=MeasurementSettings(
            data=base / data if data else None,
            images=plan.images,
            ranked=plan.ranked,
            calibration=plan.calibration,
            gates=_gates(plan),
        ),
    )
    if len(profiles) == 1:
        return [job]
    folders = [job.folder.with_name(f"{job.name}-{batch.min}-{batch.opt}-{batch.max}") for batch in profiles]
    return [replace(job, folder=folder, batch=batch) for folder, batch in zip(folders, profiles, strict=True)]


def _gates(plan: Plan) -> dict[Precision, Gates]:
    changes = {name: change.model_dump(exclude_none=True) for name, change in plan.gates.items()}
    return {name: replace(gates, **changes.get(name, {})) for name, gates in DEFAULTS.items()}


Place = tuple[str | int, ...]
Lines = dict[Place, int]


def _read(path: Path) -> tuple[Any, Lines]:
    """The file as dicts, lists and strings, and the line number of every value.

    Scalars stay strings and pydantic converts them: YAML 1.1 reads 1:8:32 as a number in base sixty.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"there is no plan to read at {path}: {error}") from None
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not valid YAML: {error}") from None
    lines: Lines = {}

    def plain(node: yaml.Node, place: Place) -> Any:
        lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return [plain(inner, (*place, index)) for index, inner in enumerate(node.value)]
        if not isinstance(node, yaml.MappingNode):
            return node.value
        result: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.value in result:
                raise PlanError(f"{path} line {line}: a key is given twice or is not a plain word; keep one")
            lines[(*place, key.value)] = line
            result[key.value] = plain(value, (*place, key.value))
        return result

    if not isinstance(node, yaml.MappingNode):
        raise PlanError(f"{path} must hold key: value pairs: out, models and more; see docs/how-to/batch-export.md")
    return plain(node, ()), lines


def _explain(path: Path, lines: Lines, issue: Any) -> str:
    place = issue["loc"]
    line = next(lines[place[:end]] for end in range(len(place), -1, -1) if place[:end] in lines)
    key = ".".join(str(word) for word in place if word != "[key]")
    message = issue["msg"].removeprefix("Value error, ")
    if issue["type"] == "extra_forbidden":
        within: dict[str | int, type[BaseModel]] = {"models": Model, "gates": GateChange}
        model = within[place[0]] if len(place) > 1 else Plan
        message = unknown_name(str(place[-1]), list(model.model_fields))
    elif place[-1:] == ("[key]",):
        message = unknown_name(str(place[-2]), list(DEFAULTS))
    return f"{path} line {line}, {key}: {message}"
