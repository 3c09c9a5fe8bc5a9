"""INT8 by post-training quantisation: convolutions in eight bits, the rest as it was.

Weights become whole numbers with a scale for each channel, and so do the values between the
convolutions, whose ranges are measured on frames (Jacob et al., "Quantization and Training of
Neural Networks for Efficient Integer-Arithmetic-Only Inference", 2018). What a convolution is off
by on average goes into its bias (Nagel et al., "Data-Free Quantization Through Weight Equalization
and Bias Correction", 2019). NNCF does that; the result is a frame model with the standard operators
QuantizeLinear and DequantizeLinear, which OpenVINO and ONNX Runtime fuse into INT8 convolutions.

What NNCF does by itself gave 29 to 47 dB with the filters that ship. So

* the ranges reach from the least to the most that was seen: cut off, a line here and there is
  another one. Where that is too coarse, they are cut where it costs least (a histogram), or the
  biases are left as they are: which of these, frames decide that were kept back;
* what sums of residual blocks add, and the last convolution, stay in floating point: what is off
  there by a constant is a pattern of dots on flat areas.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from engines.errors import ConversionError
from engines.graphs.graph_types import Names, one_line, read_by
from engines.graphs.rows import in_rows

if TYPE_CHECKING:
    import onnx

KEPT: Final = ("InstanceNormalization", "GroupNormalization", "Tanh", "Sigmoid", "Softmax", "Pow")
"""Operators whose values stay in floating point: steep ones, and statistics."""
MEASURED: Final = (("MINMAX", True), ("HISTOGRAM", True), ("MINMAX", False))
"""What to try: how ranges are found, and whether biases are corrected."""
KEPT_BACK: Final = 4
"""One frame of so many decides."""
SUMS: Final = ("Add",)
"""What they add stays in floating point; the convolution behind one reads the sum in INT8."""
MULTIPLIED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def why_not() -> str | None:
    """Return None when graphs can be quantised here, else what to install."""
    for package in ("nncf", "onnxruntime"):
        if importlib.util.find_spec(package) is None:
            return f"the package {package} is not installed (pip install 'pix2live[int8]')"
    return None


def to_int8(master: onnx.ModelProto, frames: Sequence[NDArray[np.uint8]]) -> onnx.ModelProto:
    """Return the frame model with its convolutions in INT8.

    The last convolution and what comes behind it, where a value becomes a pixel, are not quantised,
    nor are normalisations. ``master`` is not changed; the card is left out.

    Args:
        master: a frame model in FP32, without states.
        frames: uint8 (H, W, 3) BGR of one size that the model takes: what it will see. Nobody
            should see these again in a proof.

    Raises:
        ConversionError: a package is missing, it has states or alpha, or cannot be quantised.
    """
    import onnx

    reason = why_not()
    if reason is not None:
        raise ConversionError(f"INT8 needs another package: {reason}")
    found = [item.name for item in (*master.graph.input, *master.graph.output)]
    if others := sorted(set(found) - {"frame", "translated", *_weight_names(master)}):
        raise ConversionError(f"INT8 is not for models with {' and '.join(others)}")
    if not frames:
        raise ConversionError("INT8 measures the ranges of values on frames, and there are none")
    graph = in_rows(master)
    if graph is None:
        graph = onnx.ModelProto()
        graph.CopyFrom(master)
        del graph.metadata_props[:]
    names = Names(graph.graph)
    for node in graph.graph.node:  # NNCF tells them by their names
        node.name = node.name or names.new(f"{node.op_type.lower()}")
    try:
        with _quiet():
            quantised = _best(graph, frames)
    except Exception as error:  # NNCF, ONNX Runtime and onnx each raise their own
        raise ConversionError(f"NNCF cannot quantise this network: {one_line(error)}") from error
    if not any(node.op_type == "QuantizeLinear" for node in quantised.graph.node):
        raise ConversionError("there is nothing to quantise in this network")
    return quantised


def _weight_names(model: onnx.ModelProto) -> set[str]:
    """Return the weights, which old files list as inputs."""
    return {item.name for item in model.graph.initializer}


def _best(graph: onnx.ModelProto, frames: Sequence[NDArray[np.uint8]]) -> onnx.ModelProto:
    """Return what is nearest to ``graph`` on the worst of the frames that are kept back.

    By the fourth power of the differences: a wrong line is seen, grain is not.
    """
    kept = frames[::KEPT_BACK] if len(frames) > KEPT_BACK else frames
    given = [frame for number, frame in enumerate(frames) if number % KEPT_BACK] or frames
    right = _pictures(graph, kept)

    def worst(candidate: onnx.ModelProto) -> float:
        found = _pictures(candidate, kept)
        return max(float(np.power(a - b, 4).mean()) for a, b in zip(found, right, strict=True))

    return min((_quantised(graph, given, *how) for how in MEASURED), key=worst)


def _pictures(
    graph: onnx.ModelProto, frames: Sequence[NDArray[np.uint8]]
) -> list[NDArray[np.float32]]:
    """Return what ``graph`` makes of frames, as ONNX Runtime computes it."""
    import onnxruntime as runtime

    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(
        graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [
        session.run(["translated"], {"frame": frame[None]})[0].astype(np.float32)
        for frame in frames
    ]


def _quantised(
    graph: onnx.ModelProto, frames: Sequence[NDArray[np.uint8]], ranges: str, biases: bool
) -> onnx.ModelProto:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # asks nobody
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    found = {node.op_type for node in graph.graph.node}
    quantised: onnx.ModelProto = nncf.quantize(
        graph,
        nncf.Dataset([{"frame": frame[None]} for frame in frames]),
        # Ranges that need not be symmetric: half of the values behind a ReLU would never be used.
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(frames),
        ignored_scope=nncf.IgnoredScope(
            names=_end(graph.graph), types=[kind for kind in (*KEPT, *SUMS) if kind in found]
        ),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_range_estimator_params=getattr(RangeEstimatorParametersSet, ranges),
            disable_bias_correction=not biases,
            # Half ranges are for processors whose sums of products overflow at 16 bits. They are
            # not asked to: see `engines.processor.has_vnni`.
            overflow_fix=OverflowFix.DISABLE,
        ),
    )
    return quantised


def _end(graph: onnx.GraphProto) -> list[str]:
    """Return the names of the last convolution, where there are several, and all behind it."""
    places = [place for place, node in enumerate(graph.node) if node.op_type in MULTIPLIED]
    if not places:
        raise ConversionError("it has no convolutions")
    last = graph.node[places[-1]]
    reached, names = set(last.output), [last.name] if len(places) > 1 else []
    for node in graph.node[places[-1] + 1 :]:
        if reached & read_by(node):
            reached |= set(node.output)
            names.append(node.name)
    return names


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """NNCF shows progress bars and logs what it does: not for the person who converts."""
    logger = logging.getLogger("nncf")
    level = logger.level
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            logger.setLevel(logging.ERROR)
            yield
    finally:
        logger.setLevel(level)
