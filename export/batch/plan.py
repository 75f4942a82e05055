"""The plan: a YAML file with checkpoints, engines, batch profiles and gates, read into one job for each bundle."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from bundle import BatchProfile, Precision
from bundle.manifest import StrictModel
from export.bundles.projection import Reduction
from export.bundles.targets import EXPLAIN, FLOAT32, TARGETS, MeasurementSettings, Target, parse_label
from export.errors import ExportError, PlanError
from export.parity.gates import DEFAULTS
from export.tensorrt.build import PRECISIONS, parse_batch_profile
from export.tensorrt.library import EXTRAS, LibraryName, check_rtx_target
from training.config import unknown_name
from training.precision import full_precision_name

COMPILED: dict[str, tuple[LibraryName, Precision]] = {
    f"{library}:{precision}": (library, precision) for library in EXTRAS for precision in PRECISIONS
}
DEFAULT_BATCH = BatchProfile(min=1, opt=8, max=64)


T = TypeVar("T")


def _validator(parse: Callable[[str], T]) -> Callable[[Any], T]:
    """A parser of the command line as a validator: pydantic collects ValueErrors only."""

    def validate(text: Any) -> T:
        try:
            return parse(str(text))
        except ExportError as error:
            raise ValueError(str(error)) from None

    return validate


def _one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


Engine = Annotated[str, AfterValidator(_validator(lambda text: parse_label(text, [*TARGETS, *COMPILED])))]
Profile = Annotated[BatchProfile, BeforeValidator(_validator(parse_batch_profile))]


class BundleSettings(StrictModel):
    """Settings of all models, which a model may override."""

    data: Path | None = None
    engines: tuple[Engine, ...] | None = None
    batch: Annotated[tuple[Profile, ...], BeforeValidator(_one_or_more), Field(min_length=1)] | None = None
    compute_capability: Annotated[str, AfterValidator(_validator(check_rtx_target))] | None = None


class Model(BundleSettings):
    """One checkpoint."""

    checkpoint: Path
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.+-]*$", description="the bundle's folder")
    dim: int | None = Field(default=None, ge=1)
    whiten: bool = False
    explain: bool = False

    @model_validator(mode="after")
    def _whiten_needs_dim(self) -> Self:
        if self.whiten and self.dim is None:
            raise ValueError("whiten applies to the projection of dim; set dim too")
        return self

    @property
    def bundle_name(self) -> str:
        """`name`, or the folder of the checkpoint."""
        path = self.checkpoint
        return self.name or (path.parent if path.suffix == ".safetensors" else path).name


class GateChange(StrictModel):
    """Gates of a precision that differ from `export.parity.gates.DEFAULTS`."""

    min_cosine: float | None = Field(default=None, ge=0, le=1)
    min_consistency: float | None = Field(default=None, ge=0, le=1)
    max_mAP_loss: float | None = Field(default=None, ge=0)


class Plan(BundleSettings):
    """The content of the file. Relative paths start at its folder."""

    out: Path
    gates: dict[Annotated[Precision, BeforeValidator(full_precision_name)], GateChange] = Field(default_factory=dict)
    images: int = Field(default=64, ge=2)
    ranked: int = Field(default=2000, ge=2)
    calibration: int = Field(default=128, ge=8)
    timeout: float = Field(default=3600, gt=0, description="seconds without progress until a process is stopped")
    models: tuple[Model, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One bundle to make from one checkpoint, with one batch profile for its TensorRT engines."""

    folder: Path
    checkpoint: Path
    labels: tuple[str, ...]  # engines in the order in which they are made, float32 first
    batch: BatchProfile
    compute_capability: str | None  # of TensorRT-RTX engines; None: all default targets
    reduction: Reduction | None
    measuring: MeasurementSettings
    timeout: float  # seconds

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def targets(self) -> list[Target]:
        """The ONNX and OpenVINO engines besides float32."""
        return [TARGETS[label] for label in self.labels if label in TARGETS and label != FLOAT32.label]

    @property
    def compiled(self) -> list[str]:
        """The labels of the TensorRT engines."""
        return [label for label in self.labels if label in COMPILED]


def read_plan(path: Path) -> tuple[Path, list[Job]]:
    """The output folder and the bundles to make. Raises PlanError with line and key of each mistake."""
    try:
        loader = _StringLoader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        given = None if root is None else loader.construct_document(root)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"there is no plan to read at {path}: {error}") from None
    except yaml.constructor.ConstructorError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise PlanError(f"{path} line {line}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise PlanError(f"{path} is not valid YAML: {error}") from None
    if root is None or not isinstance(given, dict):
        raise PlanError(f"{path} must hold key: value pairs: out, models and more; see docs/how-to/batch-export.md")
    try:
        plan = Plan.model_validate(given)
    except ValidationError as error:
        problems = (f"{path} line {_line(root, issue['loc'])}, {_describe(issue)}" for issue in error.errors())
        raise PlanError("; ".join(problems)) from None
    for index, model in enumerate(plan.models):
        where = f"{path} line {_line(root, ('models', index))}, models.{index}"
        if model.dim is not None and model.data is None and plan.data is None:
            raise PlanError(f"{where}: dim is fitted to training crops; set data to the data set of the training")
        if not model.bundle_name:
            raise PlanError(f"{where}: the checkpoint has no folder to name the bundle after; set name")
    jobs = [job for model in plan.models for job in _jobs(plan, model, path.resolve().parent)]
    names = [job.name for job in jobs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"{path}: two bundles would have the name {', '.join(twice)}; set name for each model")
    return path.resolve().parent / plan.out, jobs


def _jobs(plan: Plan, model: Model, base: Path) -> Iterator[Job]:
    unset = [name for name in BundleSettings.model_fields if getattr(model, name) is None]
    model = model.model_copy(update={name: getattr(plan, name) for name in unset})
    engines = [FLOAT32.label, *([EXPLAIN] if model.explain else []), *(model.engines or ())]
    engines.sort(key=lambda label: label in COMPILED)  # a TensorRT engine is made from the finished bundle
    gates = {name: change.model_dump(exclude_none=True) for name, change in plan.gates.items()}
    job = Job(
        folder=base / plan.out / model.bundle_name,
        checkpoint=base / model.checkpoint,
        labels=tuple(dict.fromkeys(engines)),
        batch=DEFAULT_BATCH,
        compute_capability=model.compute_capability,
        reduction=Reduction(model.dim, model.whiten) if model.dim else None,
        measuring=MeasurementSettings(
            data=base / model.data if model.data else None,
            images=plan.images,
            ranked=plan.ranked,
            calibration=plan.calibration,
            gates={name: replace(default, **gates.get(name, {})) for name, default in DEFAULTS.items()},
        ),
        timeout=plan.timeout,
    )
    # a service uses one engine per kind and precision of a bundle, so each profile gets its own bundle
    profiles = dict.fromkeys(model.batch or ()) if job.compiled else {}
    for batch in profiles or [DEFAULT_BATCH]:
        suffix = f"-{batch.min}-{batch.opt}-{batch.max}" if len(profiles) > 1 else ""
        yield replace(job, folder=job.folder.with_name(job.name + suffix), batch=batch)


class _StringLoader(yaml.BaseLoader):
    """Leaves scalars as strings, which pydantic converts: YAML 1.1 reads 1:8:32 as a number in base sixty."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse duplicate keys, of which YAML keeps the last."""
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value in keys:
                problem = "a key is given twice or is not a plain word; keep one"
                raise yaml.constructor.ConstructorError(problem=problem, problem_mark=key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def _line(node: yaml.Node, place: tuple[str | int, ...]) -> int:
    """The line of the value at `place`, or of the innermost key or item on the way to it that the file has."""
    line = node.start_mark.line + 1
    for word in place:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == word), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode):
            node = node.value[word]
            line = node.start_mark.line + 1
    return line


def _describe(issue: Mapping[str, Any]) -> str:
    place = [str(word) for word in issue["loc"] if word != "[key]"]
    message = issue["msg"].removeprefix("Value error, ")
    if issue["type"] == "extra_forbidden":
        sections: dict[str, type[BaseModel]] = {"models": Model, "gates": GateChange}
        section = sections[place[0]] if len(place) > 1 else Plan
        message = unknown_name(place[-1], list(section.model_fields))
    elif issue["loc"][-1:] == ("[key]",):
        message = unknown_name(place[-1], list(DEFAULTS))
    return f"{'.'.join(place)}: {message}"
