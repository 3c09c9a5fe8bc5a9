"""A virtual camera that OBS, Zoom or a browser can choose, through pyvirtualcam."""

from __future__ import annotations

import sys
from typing import Any

from engines import SinkError, Size
from realtime.frame import Frame
from realtime.sinks.base import Sink, SinkInfo, even_picture, even_size

INSTALL_HINTS = {
    "linux": "sudo apt-get install v4l2loopback-dkms && sudo modprobe v4l2loopback devices=1"
    " exclusive_caps=1 card_label=pix2live",
    "darwin": "install OBS 30 or newer, start its virtual camera once, and stop it",
    "win32": "install OBS 26 or newer (it brings 'OBS Virtual Camera'), or Unity Capture",
}


class VirtualCameraSink(Sink):
    """Sends the newest frame at a steady rate to one device: the named one, or the first free."""

    name = "virtual-camera"
    freshest = True

    def __init__(self, device: str | None = None, backend: str | None = None) -> None:
        super().__init__()
        self._device = device or None
        self._backend = backend
        self._camera: Any = None
        self._size: Size = (0, 0)

    def open(self, info: SinkInfo) -> None:
        try:
            import pyvirtualcam
        except ImportError as error:
            raise SinkError(
                "the virtual camera needs pyvirtualcam: pip install pyvirtualcam"
            ) from error
        self._size = info.size
        width, height = even_size(info.size)
        if self._device is not None:
            _free(self._device)  # another program may have left it so
        try:
            self._camera = pyvirtualcam.Camera(
                width=width,
                height=height,
                fps=info.fps,
                fmt=pyvirtualcam.PixelFormat.BGR,
                device=self._device,
                backend=self._backend,
            )
        except (RuntimeError, ValueError) as error:
            platform = "linux" if sys.platform.startswith("linux") else sys.platform
            hint = INSTALL_HINTS.get(platform, "see pyvirtualcam's documentation")
            what = f"the virtual camera {self._device}" if self._device else "a virtual camera"
            reason = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
            reason = reason.rstrip(".")  # ours follows
            raise SinkError(f"cannot open {what}: {reason}. To get one: {hint}") from error
        self.beat_fps = info.fps
        self.name = f"virtual-camera:{self._camera.device}"
        self.notes.append(f"virtual camera: {self._camera.device}, {width}x{height}")

    def write(self, frame: Frame) -> None:
        picture = even_picture(frame.pixels, self._size, self.name)
        try:
            self._camera.send(picture)
        except Exception as error:
            raise SinkError(f"{self.name} went away: {error}") from error

    def close(self) -> None:
        camera, self._camera = self._camera, None
        if camera is None:
            return
        device = camera.device
        try:
            camera.close()
            _free(device)
        except Exception as error:
            raise SinkError(f"cannot close {self.name}: {error}") from error


def _free(device: str) -> None:
    """Undo what v4l2loopback forgets; see `free_loopback`."""
    if sys.platform.startswith("linux"):
        from realtime.sources import v4l2

        v4l2.free_loopback(device)
