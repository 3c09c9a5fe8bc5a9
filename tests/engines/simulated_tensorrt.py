"""A TensorRT for the simulated device: the calls of `nvidia.tensorrt_network`, and no others.

A "plan" is the ONNX file itself; the reference evaluator of onnx computes it when the simulated
stream comes to it.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import onnx
from onnx.reference import ReferenceEvaluator
from simulated_cuda import DeviceFailure, SimulatedCuda


class Messages:
    """As engines.nvidia.tensorrt_api.Messages."""

    logger = object()
    said = "simulated: no reason"

    def mark(self) -> int:
        return 0

    def words(self, _: int) -> str:
        return self.said


class SimulatedTensorRt:
    """Stands for the module ``tensorrt``; with ``rtx`` for ``tensorrt_rtx``."""

    def __init__(self, cuda: SimulatedCuda, *, rtx: bool = False) -> None:
        self.cuda, self.rtx = cuda, rtx
        self.LayerInformationFormat = SimpleNamespace(JSON="json")
        self.kernels_seen: list[bytes] = []
        self.refuse_frame = -1
        """The enqueue with this number is refused."""
        self.live = 0
        """Contexts that exist."""
        if rtx:
            self.CudaGraphStrategy = SimpleNamespace(DISABLED="disabled", WHOLE_GRAPH_CAPTURE="all")

    def fails(self, name: str) -> bool:
        """Call the device; TensorRT gives None, and no exception, where CUDA fails."""
        try:
            self.cuda.call(name)
        except DeviceFailure:
            return True
        return False

    def Runtime(self, logger: object) -> Runtime:
        try:
            self.cuda.call("Runtime")
        except DeviceFailure as error:
            raise TypeError("pybind11::init(): factory function returned nullptr") from error
        return Runtime(self)


class Runtime:
    def __init__(self, library: SimulatedTensorRt) -> None:
        self._library = library

    def deserialize_cuda_engine(self, plan: bytes) -> Any:
        if plan == b"of another version" or self._library.fails("deserialize"):
            return None
        return (RtxEngine if self._library.rtx else Engine)(self._library, plan)


class Engine:
    def __init__(self, library: SimulatedTensorRt, plan: bytes) -> None:
        self.library = library
        self.model = onnx.load_model_from_string(plan)
        self.evaluator = ReferenceEvaluator(self.model)
        graph = self.model.graph
        self.inputs = [value.name for value in graph.input]
        self.outputs = [value.name for value in graph.output]
        self.types = {
            value.name: onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
            for value in (*graph.input, *graph.output)
        }
        self.num_io_tensors = len(self.types)

    def get_tensor_name(self, index: int) -> str:
        return list(self.types)[index]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 1, 1, 3), (1, 2, 2, 3), (1, 4096, 4096, 3)]

    def create_engine_inspector(self) -> Any:
        layers = [{"LayerType": node.op_type} for node in self.model.graph.node]
        return SimpleNamespace(get_engine_information=lambda _: json.dumps({"Layers": layers}))

    def create_execution_context(self, config: Any = None) -> Any:
        return None if self.library.fails("create_execution_context") else Context(self)


class RtxEngine(Engine):
    def create_runtime_config(self) -> Any:
        library = self.library

        class Kernels:
            def deserialize(self, data: bytes) -> bool:
                library.kernels_seen.append(data)
                return True

            def serialize(self) -> bytes:
                return b"kernels for this GPU"

        return SimpleNamespace(
            cuda_graph_strategy="disabled",
            create_runtime_cache=Kernels,
            set_runtime_cache=lambda cache: True,
        )


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        engine.library.live += 1

    def __del__(self) -> None:
        self._engine.library.live -= 1

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fits = name in self._engine.inputs and max(shape) <= 4096
        self._shapes[name] = shape
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes["frame"]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return address % 256 == 0

    def execute_async_v3(self, handle: int) -> bool:
        library = self._engine.library
        cuda, engine, addresses = library.cuda, self._engine, dict(self._addresses)
        if cuda.calls["enqueue"] + 1 == library.refuse_frame:
            cuda.calls["enqueue"] += 1
            return False

        def step() -> None:
            feed = {
                name: cuda.memory_at(addresses[name])
                .read()
                .view(engine.types[name])
                .reshape(self._shapes[name])
                for name in engine.inputs
            }
            results = engine.evaluator.run(None, {name: x.copy() for name, x in feed.items()})
            for name, result in zip(engine.outputs, results, strict=True):
                cuda.memory_at(addresses[name]).write(result.reshape(-1).view("uint8"))

        try:
            cuda.compute(handle, step)
        except DeviceFailure:
            return False
        return True
