"""ONNX files of other people: reading them, and finding the picture that goes in and comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from engines.errors import ConversionError
from engines.graphs.graph_types import one_line, read_by, upstream

if TYPE_CHECKING:
    import onnx

LARGEST_MODEL_BYTES: Final = 2**31 - 1
"""Protobuf takes no more in one piece; with the weights that lie beside the file."""

CHANNELS: Final = (1, 3, 4)
"""A picture has one of these."""

LISTED: Final = 6
"""As many tensors an error message names."""

Dims = tuple[int | str | None, ...]
"""A number, a name, or None for a side of which the file says nothing."""


@dataclass(frozen=True, slots=True)
class Port:
    """A tensor that goes in or comes out."""

    name: str
    kind: int
    """onnx.TensorProto's number of its type; 0 for what is no tensor."""
    dims: Dims | None
    """None when the file does not even say how many sides it has."""

    @property
    def words(self) -> str:
        """As an error message says it: ``'image' float (1, 3, H, W)``."""
        import onnx

        kind = onnx.TensorProto.DataType.Name(self.kind).lower() if self.kind else "no tensor"
        if self.dims is None:
            return f"{self.name!r} {kind} of unknown rank"
        sides = ", ".join("?" if side is None else str(side) for side in self.dims)
        return f"{self.name!r} {kind} ({sides})"


def load_onnx(path: str | Path) -> onnx.ModelProto:
    """Read an ONNX file with the weights that lie beside it.

    Raises:
        ConversionError: there is no such file, it is no ONNX, weights are missing or lie outside
            its folder, or all of it is larger than 2 GiB.
    """
    import onnx

    path = Path(path)
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST_MODEL_BYTES else b""
    except FileNotFoundError as error:
        raise ConversionError(f"no file {path}") from error
    except OSError as error:
        raise ConversionError(f"cannot read {path}: {error.strerror}") from error
    _check_bytes(path, size)
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf raises its own unrelated types
        raise ConversionError(f"{path} is no ONNX file") from error
    if not model.ir_version or not model.opset_import or not model.graph.node:
        raise ConversionError(f"{path} is no ONNX file, or one without a network in it")
    _load_weights(model, path, size)
    return model


def _load_weights(model: onnx.ModelProto, path: Path, size: int) -> None:
    import onnx
    from onnx import external_data_helper

    tensors = [item for item in _tensors(model) if external_data_helper.uses_external_data(item)]
    for tensor in tensors:
        try:
            info = external_data_helper.ExternalDataInfo(tensor)
            location = path.parent / info.location
            # Checked before anything is read; onnx checks the way to the file once more.
            there = location.stat().st_size
            size += info.length or there
            _check_bytes(path, size)
            external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except ConversionError:
            raise
        except FileNotFoundError as error:
            raise ConversionError(
                f"{path} keeps weights in {info.location!r} beside it, and there is no such file"
            ) from error
        except Exception as error:  # of onnx's checker, the file system and protobuf
            raise ConversionError(
                f"the weights beside {path} cannot be read: {one_line(error)}"
            ) from error
        # They are in memory now.
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    values = [item.t for node in model.graph.node for item in node.attribute if item.HasField("t")]
    return [*model.graph.initializer, *values]


def _check_bytes(path: Path, size: int) -> None:
    if size > LARGEST_MODEL_BYTES:
        raise ConversionError(
            f"{path} is {size / 2**30:.1f} GiB with its weights; networks up to 2 GiB are taken"
        )


def is_frame_model(model: onnx.ModelProto) -> bool:
    """Whether a graph takes ``frame`` and gives ``translated``, both uint8 (1, H, W, 3)."""
    from onnx import TensorProto

    found = {(True, port.name): port for port in inputs_of(model)}
    found |= {(False, port.name): port for port in outputs_of(model)}
    ports = [found.get((True, "frame")), found.get((False, "translated"))]
    return all(
        port is not None
        and port.kind == TensorProto.UINT8
        and port.dims is not None
        and len(port.dims) == 4
        and (port.dims[0], port.dims[3]) == (1, 3)
        for port in ports
    )


def inputs_of(model: onnx.ModelProto) -> list[Port]:
    """What has to be fed: old files list their weights as inputs too, which are left out."""
    weights = {item.name for item in model.graph.initializer}
    return [_port(item) for item in model.graph.input if item.name not in weights]


def outputs_of(model: onnx.ModelProto) -> list[Port]:
    """What the graph gives."""
    return [_port(item) for item in model.graph.output]


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return Port(value.name, tensor.elem_type, None)
    dims: list[int | str | None] = []
    for dim in tensor.shape.dim:
        known = dim.HasField("dim_value") and dim.dim_value > 0  # old files say -1, or 0
        dims.append(dim.dim_value if known else dim.dim_param or None)
    return Port(value.name, tensor.elem_type, tuple(dims))


def choose_output(model: onnx.ModelProto, name: str | None) -> Port:
    """Return the output that is the picture.

    Raises:
        ConversionError: there is no output of this name, or several and no name was given.
    """
    return _choose(outputs_of(model), name, "output")


def choose_input(model: onnx.ModelProto, name: str | None, output: str) -> Port:
    """Return the input that is the picture, of those that ``output`` depends on.

    Raises:
        ConversionError: there is none, none of this name, several and no name was given, or
            others that nobody would feed.
    """
    nodes = upstream(model.graph.node, [output])
    read = {item for node in nodes for item in read_by(node)} | {output}
    ports = inputs_of(model)
    needed = [port for port in ports if port.name in read]
    if not needed:
        raise ConversionError(f"the output {output!r} does not depend on any input")
    chosen = _choose(needed, name, "input", [port for port in ports if port not in needed])
    others = [port.words for port in needed if port is not chosen]
    if others:
        raise ConversionError(
            f"the output {output!r} also needs {', '.join(others)}: pix2live feeds one picture,"
            " export the network with the others as constants"
        )
    return chosen


def _choose(ports: Sequence[Port], name: str | None, what: str, idle: Sequence[Port] = ()) -> Port:
    found = ", ".join(port.words for port in ports[:LISTED])
    if len(ports) > LISTED:
        found += f" and {len(ports) - LISTED} more"
    if name is None:
        if len(ports) == 1:
            return ports[0]
        raise ConversionError(
            f"which {what} is the picture? There are {found}: name one (--{what} NAME)"
        )
    for port in ports:
        if port.name == name:
            return port
    if any(port.name == name for port in idle):
        raise ConversionError(
            f"the picture does not depend on the {what} {name!r}, only on {found}"
        )
    raise ConversionError(f"there is no {what} {name!r}, only {found}")


def guess_layout(model: onnx.ModelProto, input_name: str | None = None) -> str:
    """Return ``nchw`` or ``nhwc``, from where the input's shape has the channels.

    Raises:
        ConversionError: no picture goes in, or its shape does not tell.
    """
    ports = inputs_of(model)
    if input_name is None and len(ports) > 1:
        # Those that do not look like a picture are asked about later, with the output known.
        ports = [port for port in ports if port.dims is not None and len(port.dims) == 4] or ports
    port = _choose(ports, input_name, "input")
    dims = port.dims
    if dims is None or len(dims) not in (3, 4):
        raise ConversionError(f"no picture goes in: expected (1, C, H, W), found {port.words}")
    first, last = dims[-3], dims[-1]
    for channels in ((3,), CHANNELS):
        if (first in channels) != (last in channels):
            return "nchw" if first in channels else "nhwc"
        if first in channels:
            break
    raise ConversionError(f"say --layout nchw or nhwc: {port.words} could be either")
