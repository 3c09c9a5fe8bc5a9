"""Frame models: one ONNX file, frames in, frames out, with a card that says what it is.

The contract that training, conversion and every backend share:

* input ``frame``: uint8, (1, H, W, 3), BGR; H and W symbolic, or both fixed;
* output ``translated``: the same type and layout, the same H and W;
* optional output ``alpha``: uint8, (1, H, W, 1);
* optional state: inputs ``state_*`` with outputs of the same names plus ``_out`` (in ONNX no output
  can have an input's name), fed back each frame and zero after a reset. Every side of a state is
  a number, or named as the frame's: ``H``, ``W``, or a part of them such as ``H/4``;
* the card: JSON under ``pix2live.card`` in the ONNX metadata.

Cast, colour order, range and layout are in the graph, so that no backend knows a normalisation
constant.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engines.artefact import replace_file
from engines.errors import EngineError, ModelError

if TYPE_CHECKING:
    import onnx

CARD_KEY = "pix2live.card"
CARD_VERSION = 1
TASKS = ("paired", "unpaired", "style", "other")
STATE_PREFIX = "state_"
STATE_OUT_SUFFIX = "_out"
UNNAMED = "?"
PART_OF_A_SIDE = re.compile(r"(.+?)(?://?([1-9]\d*))?")
"""``H/4``: the side, and by what it is divided."""
WEIGHT_SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin", ".model", ".pkl", ".t7")

Size = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a person should know about a frame model."""

    name: str
    title: str = ""
    task: str = "other"
    domains: str = ""
    """From what to what, for instance ``photo -> comic``."""
    architecture: str = ""
    stride: int = 1
    """H and W must be multiples of it."""
    licence: str = ""
    origin: str = ""
    weights_sha256: str = ""
    training: str = ""
    proofs: dict[str, dict[str, float]] = field(default_factory=dict)
    """Backend and precision (``openvino/bf16``) -> how far it is from the original network."""
    command: str = ""
    """What makes this filter again, word for word: ``pix2live train style ...``."""
    measures: dict[str, float] = field(default_factory=dict)
    """What was measured of it; units are in the names: ``warping_error_1e3``,
    ``training_minutes``."""
    quantised_from: str = ""
    """`FrameModel.graph_sha256` of the model whose INT8 twin this is (`engines.twins`)."""

    def to_json(self) -> str:
        return json.dumps({"version": CARD_VERSION, **asdict(self)}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Read a card; unknown fields of newer versions are left out.

        Raises:
            ModelError: no JSON object, a field of the wrong type, or an impossible value.
        """
        try:
            raw: Any = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"the card is no JSON: {error}") from error
        if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
            raise ModelError("the card must be a JSON object with a name")
        known = {item.name: raw[item.name] for item in fields(cls) if item.name in raw}
        for name, value in known.items():
            expected = {"stride": int, "proofs": dict, "measures": dict}.get(name, str)
            if not isinstance(value, expected) or isinstance(value, bool):
                raise ModelError(f"the card's {name} must be {expected.__name__}, found {value!r}")
        card = cls(**known)
        for name, numbers in card.proofs.items():
            if not isinstance(numbers, dict) or not all(
                isinstance(number, (int, float)) for number in numbers.values()
            ):
                raise ModelError(f"the card's proof {name!r} must be numbers, found {numbers!r}")
        for name, number in card.measures.items():
            if not _is_finite(number):
                raise ModelError(
                    f"the card's measure {name!r} must be a finite number, found {number!r}"
                )
        if card.stride < 1:
            raise ModelError(f"the card's stride must be 1 or more, found {card.stride}")
        if card.task not in TASKS:
            raise ModelError(f"the card's task must be one of {TASKS}, found {card.task!r}")
        return card


@dataclass(frozen=True, slots=True)
class FrameModel:
    """A checked frame model file. The weights stay in the file until an engine opens it."""

    path: Path
    card: Card
    sha256: str
    """Of the whole file."""
    has_alpha: bool = False
    states: tuple[str, ...] = ()
    """Names of the state inputs; the output that feeds each is ``NAME_out``."""
    state_shapes: tuple[tuple[int | str, ...], ...] = ()
    """One a state; symbolic sides are ``H``, ``W``, ``H/4`` and so on."""
    state_types: tuple[str, ...] = ()
    """numpy's names of their types."""
    fixed_size: Size | None = None
    """(width, height) when the graph takes one size only."""

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def graph_sha256(self) -> str:
        """Of the file without its metadata: the same when only the card changed.

        Engines are built for this. Reads the whole file: ask once.

        Raises:
            EngineError: see `graph`.
        """
        proto = self.graph()
        del proto.metadata_props[:]
        return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()

    def graph(self) -> onnx.ModelProto:
        """Read the file again, with its weights.

        Raises:
            EngineError: the file cannot be read any more.
        """
        import onnx

        try:
            return onnx.load(str(self.path))
        except Exception as error:  # onnx, protobuf and the file system each raise their own
            raise EngineError(f"cannot read {self.path}: {str(error).splitlines()[0]}") from error

    @classmethod
    def read(cls, path: str | Path) -> FrameModel:
        """Read and check a frame model.

        Raises:
            ModelError: there is no such file, it is no ONNX, or it breaks the contract.
        """
        import onnx

        path = Path(path)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise ModelError(f"no model file {path}") from error
        except OSError as error:
            raise ModelError(f"cannot read {path}: {error.strerror}") from error
        try:
            proto = onnx.load_model_from_string(data)
        except Exception as error:  # protobuf raises its own unrelated types
            raise ModelError(f"{path} is no ONNX file. {_how_to_convert(path)}") from error
        try:
            return _describe(proto, path, hashlib.sha256(data).hexdigest())
        except ModelError as error:
            raise ModelError(
                f"{path} is no frame model: {error}. {_how_to_convert(path)}"
            ) from error

    def fit(self, size: Size) -> Size:
        """Return the nearest size, not larger than asked where possible, that the model takes."""
        if self.fixed_size is not None:
            return self.fixed_size
        stride = self.card.stride
        width, height = (max(stride, value // stride * stride) for value in size)
        return width, height

    def new_states(self, size: Size) -> dict[str, NDArray[Any]]:
        """Return every state as it is before the first frame of ``size``: all zero."""
        sides = {"W": size[0], "H": size[1]}

        def length(side: int | str) -> int:
            name, _, divisor = str(side).partition("/")
            return sides[name] // int(divisor or 1) if name in sides else int(side)

        described = zip(self.states, self.state_shapes, self.state_types, strict=True)
        return {
            name: np.zeros([length(side) for side in shape], dtype)
            for name, shape, dtype in described
        }


def write_frame_model(model: onnx.ModelProto, card: Card, path: str | Path) -> None:
    """Put the card into ``model``, check the contract, and write the file atomically.

    Raises:
        ModelError: the graph breaks the contract, or the file cannot be written.
    """
    import onnx

    path = Path(path)
    others = [item for item in model.metadata_props if item.key != CARD_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(others)
    model.metadata_props.add(key=CARD_KEY, value=card.to_json())
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise ModelError(f"not written, it is no valid ONNX graph: {reason}") from error
    try:
        _describe(model, path, "")
    except ModelError as error:
        raise ModelError(f"not written, it would be no frame model: {error}") from error
    data = model.SerializeToString()
    try:
        replace_file(path, [data])
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror}") from error


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:  # JSON has integers of any length
        return False


def _how_to_convert(path: Path) -> str:
    if path.suffix.lower() in WEIGHT_SUFFIXES:
        return f"These are weights; make a frame model of them: pix2live convert {path}"
    return f"pix2live convert makes one of most networks (pix2live convert {path})"


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or UNNAMED for dim in dims
    )


def _check_picture(value: onnx.ValueInfoProto, channels: int) -> tuple[int | str, int | str]:
    import onnx

    shape = _shape(value)
    kind = value.type.tensor_type.elem_type
    if kind != onnx.TensorProto.UINT8 or len(shape) != 4 or shape[3] != channels or shape[0] != 1:
        found = onnx.TensorProto.DataType.Name(kind).lower()
        raise ModelError(
            f"{value.name!r} must be uint8 (1, H, W, {channels}), found {found} {shape}"
        )
    return shape[1], shape[2]


def _check_size(name: str, found: tuple[int | str, int | str], frame: Any) -> None:
    """Refuse a size that cannot be the frame's; a symbolic one may have any name."""
    for side, expected in zip(found, frame, strict=True):
        if isinstance(side, int) and side != expected:
            raise ModelError(f"{name!r} is {found}, but 'frame' is {frame} (height, width)")


def _check_state(
    given: onnx.ValueInfoProto, left: onnx.ValueInfoProto, frame: tuple[int | str, int | str]
) -> tuple[tuple[int | str, ...], str]:
    """Return shape and type of a state; ``left`` is the output that feeds the next frame."""
    import onnx

    name, kind = given.name, given.type.tensor_type.elem_type
    before, after = _shape(given), _shape(left)
    same_sides = len(before) == len(after) and all(
        one == other for one, other in zip(before, after) if isinstance(other, int)
    )
    if not same_sides or kind != left.type.tensor_type.elem_type:
        raise ModelError(f"{left.name!r} {after} and {name!r} {before} differ in shape or type")
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else object)
    if dtype.kind not in "fiub":
        raise ModelError(f"the state {name!r} must be numbers that numpy knows, found {dtype}")
    names = {side: letter for side, letter in zip(frame, "HW") if side != UNNAMED}
    shape: list[int | str] = []
    for side in before:
        part = PART_OF_A_SIDE.fullmatch(str(side))
        if isinstance(side, int):
            shape.append(side)
        elif part is not None and part[1] in names:
            shape.append(names[part[1]] + (f"/{part[2]}" if part[2] else ""))
        else:
            raise ModelError(
                f"the side {side!r} of the state {name!r} is neither a number nor named as the"
                f" frame's {frame}, or a part such as '{frame[0]}/4'"
            )
    return tuple(shape), dtype.name


def _describe(proto: onnx.ModelProto, path: Path, sha256: str) -> FrameModel:
    """Check the contract and collect what an engine needs to know."""
    weights = {item.name for item in proto.graph.initializer}  # old files list them as inputs
    inputs = {item.name: item for item in proto.graph.input if item.name not in weights}
    outputs = {item.name: item for item in proto.graph.output}
    for name, found in (("frame", inputs), ("translated", outputs)):
        if name not in found:
            kind = "input" if found is inputs else "output"
            raise ModelError(f"it has no {kind} {name!r}, only {sorted(found) or 'none'}")
    frame = _check_picture(inputs["frame"], 3)
    if isinstance(frame[0], int) != isinstance(frame[1], int):
        raise ModelError(f"'frame' must have both sides fixed or both symbolic, found {frame}")
    _check_size("translated", _check_picture(outputs["translated"], 3), frame)
    if "alpha" in outputs:
        _check_size("alpha", _check_picture(outputs["alpha"], 1), frame)
    states = tuple(sorted(name for name in inputs if name.startswith(STATE_PREFIX)))
    missing = [name for name in states if name + STATE_OUT_SUFFIX not in outputs]
    if missing:
        raise ModelError(f"the states {missing} have no outputs '<name>{STATE_OUT_SUFFIX}'")
    unknown = sorted(set(inputs) - {"frame", *states})
    if unknown:
        raise ModelError(f"it has inputs that nobody feeds: {unknown}")
    described = [_check_state(inputs[x], outputs[x + STATE_OUT_SUFFIX], frame) for x in states]
    card = next((item.value for item in proto.metadata_props if item.key == CARD_KEY), None)
    if card is None:
        raise ModelError(f"its metadata has no card ({CARD_KEY!r})")
    height, width = frame
    return FrameModel(
        path=path,
        card=Card.from_json(card),
        sha256=sha256,
        has_alpha="alpha" in outputs,
        states=states,
        state_shapes=tuple(shape for shape, _ in described),
        state_types=tuple(dtype for _, dtype in described),
        fixed_size=(width, height) if isinstance(width, int) and isinstance(height, int) else None,
    )
