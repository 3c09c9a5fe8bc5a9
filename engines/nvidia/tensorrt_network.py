"""A TensorRT engine that is loaded on a GPU: its contexts, and what differs between the versions.

Used here and the same in TensorRT 10.3 to 11 and TensorRT for RTX: deserialising, input shapes,
addresses, `execute_async_v3`. Only TensorRT for RTX has a runtime configuration, with CUDA graphs
of its own and a cache of the kernels that it compiles for this GPU at the first frame.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from engines.artefact import replace_file
from engines.errors import EngineError
from engines.nvidia.cuda import Stream
from engines.nvidia.frame_ring import FRAME, TRANSLATED, Enqueue

OWN_GRAPH_RUNS: Final = 3
"""TensorRT for RTX captures a context's second frame and replays it from the third on."""


class Network:
    """A deserialised engine. Every method is called inside ``with cuda.current():``."""

    def __init__(self, module: Any, messages: Any, plan: bytes) -> None:
        """Load ``plan``.

        Args:
            module: ``tensorrt`` or ``tensorrt_rtx``.
            messages: collects what it says, see `engines.nvidia.tensorrt_api.Messages`.
            plan: what `engines.nvidia.tensorrt_builder.build_plan` made.

        Raises:
            EngineError: it is of another version or for another GPU, or does not fit.
        """
        self._module = module
        self._messages = messages
        self._contexts: list[Any] = []
        self._config: Any = None
        self._kernels: Any = None
        self.own_graphs = False
        """Whether the contexts capture CUDA graphs by themselves."""
        mark = messages.mark()
        try:
            self._runtime = module.Runtime(messages.logger)
        except (TypeError, RuntimeError) as error:  # pybind11 says only that it got no runtime
            raise EngineError(f"TensorRT does not start: {messages.words(mark)}") from error
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"the engine cannot be loaded: {messages.words(mark)}")

    def configure(self, kernel_cache: Path) -> str:
        """Take CUDA graphs and the kernel cache of TensorRT for RTX; return a note on the graphs.

        Nothing happens with other versions. A cache that does not fit is left out: TensorRT
        checks it against GPU, driver and version.
        """
        if not hasattr(self._engine, "create_runtime_config"):
            return ""
        strategy = getattr(self._module, "CudaGraphStrategy", None)
        config = self._engine.create_runtime_config()
        if config is None or not hasattr(config, "create_runtime_cache"):
            return ""  # TensorRT 10 has a configuration too, without either
        self._kernels = config.create_runtime_cache()
        with contextlib.suppress(OSError):
            self._kernels.deserialize(kernel_cache.read_bytes())
        config.set_runtime_cache(self._kernels)
        self._config = config
        if strategy is None:
            return "no CUDA graph: this version of TensorRT for RTX cannot capture one (1.2 can)"
        config.cuda_graph_strategy = strategy.WHOLE_GRAPH_CAPTURE
        self.own_graphs = config.cuda_graph_strategy == strategy.WHOLE_GRAPH_CAPTURE
        return "CUDA graph: by TensorRT for RTX" if self.own_graphs else "no CUDA graph: refused"

    def enqueue(
        self, addresses: Mapping[str, int], shapes: Mapping[str, tuple[int, ...]]
    ) -> Enqueue:
        """Make a context for one slot and return what queues its computation.

        Each slot has its own: addresses are set once, so that captured graphs stay valid.

        Args:
            addresses: name of every input and output -> device address.
            shapes: name of every input -> its shape.

        Raises:
            EngineError: too little memory, or the engine is not for this model or size.
        """
        mark = self._messages.mark()
        context = (
            self._engine.create_execution_context(self._config)
            if self._config is not None
            else self._engine.create_execution_context()
        )
        if context is None:
            raise EngineError(f"TensorRT cannot use the engine: {self._messages.words(mark)}")
        self._contexts.append(context)
        names = self.tensor_names()
        if set(names) != set(addresses):
            raise EngineError(
                f"the engine is of another model: expected {sorted(addresses)}, found"
                f" {sorted(names)}; convert the model again"
            )
        for name, shape in shapes.items():
            if not context.set_input_shape(name, shape):
                raise EngineError(self._wrong_shape(name, shape))
        if tuple(context.get_tensor_shape(TRANSLATED)) != tuple(shapes[FRAME]):
            raise EngineError(self._wrong_shape(FRAME, shapes[FRAME]))
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise EngineError(f"TensorRT refuses {name!r}: {self._messages.words(mark)}")
        messages = self._messages

        def enqueue(stream: Stream) -> None:
            before = messages.mark()
            if not context.execute_async_v3(stream.handle):
                raise EngineError(f"TensorRT failed on a frame: {messages.words(before)}")

        return enqueue

    def tensor_names(self) -> list[str]:
        """Names of all inputs and outputs."""
        engine = self._engine
        return [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]

    def save_kernels(self, path: Path) -> None:
        """Write the kernels that were compiled here, for the next start; no disk is no error."""
        if self._kernels is None:
            return
        serialized = self._kernels.serialize()
        data = bytes(serialized) if serialized is not None else b""
        if not data:
            return
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, (data,))

    def layers(self) -> dict[str, int]:
        """Return how many layers of each kind the engine has, as TensorRT's own inspector says.

        Empty where the version has no inspector, or the engine says nothing of its layers.
        """
        formats = getattr(self._module, "LayerInformationFormat", None)
        if formats is None or not hasattr(self._engine, "create_engine_inspector"):
            return {}
        text = self._engine.create_engine_inspector().get_engine_information(formats.JSON)
        try:
            found = json.loads(text)["Layers"]
        except (ValueError, KeyError, TypeError):
            return {}
        # With little verbosity a layer is its name, else an object with its type.
        kinds = (item.get("LayerType", "?") if isinstance(item, dict) else "?" for item in found)
        return dict(Counter(str(kind) for kind in kinds))

    def free(self) -> None:
        """Let go of everything, contexts first, while the device is current."""
        self._contexts.clear()
        self._config = self._kernels = None
        self._engine = None
        self._runtime = None

    def _wrong_shape(self, name: str, shape: tuple[int, ...]) -> str:
        text = f"the engine does not take {name!r} of shape {tuple(shape)}"
        with contextlib.suppress(Exception):  # it is only for the message
            smallest, _, largest = self._engine.get_tensor_profile_shape(name, 0)
            text += f", only {tuple(smallest)} to {tuple(largest)}"
        return f"{text}; convert the model for this size (pix2live convert)"
