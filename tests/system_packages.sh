#!/bin/sh
# What pip cannot bring. As root on Debian or Ubuntu it is installed, else the one line to type is
# printed. "opencv": what OpenCV needs to load and to open windows; otherwise also what the tests
# need for real screens, streams, browsers and cameras (without it those tests are
# skipped, with the reason).
set -eu

testing="xvfb xdotool x11-utils ffmpeg chromium python3-gst-1.0 \
gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"

missing=""
# Asked by loading it: ldconfig is not in an ordinary user's PATH.
python=${VENV:-.venv}/bin/python
[ -x "$python" ] || python=python3
has_library() { "$python" -c "import ctypes; ctypes.CDLL('$1')" 2>/dev/null; }
for pair in libxcb.so.1=libxcb1 libGL.so.1=libgl1 libglib-2.0.so.0=libglib2.0-0 libSM.so.6=libsm6; do
  has_library "${pair%%=*}" || missing="$missing ${pair#*=}"
done
if [ "${1:-testing}" != opencv ]; then
  # shellcheck disable=SC2086  (a list of names)
  for package in $testing; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
  done
fi
[ -n "$missing" ] || exit 0

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "installing system packages:$missing"
  export DEBIAN_FRONTEND=noninteractive
  # shellcheck disable=SC2086
  if apt-get update -qq >/dev/null && \
     apt-get install -y -qq --no-install-recommends $missing >/dev/null; then exit 0; fi
fi
echo "missing system packages; on Debian and Ubuntu: sudo apt-get install -y$missing"
[ "${1:-testing}" != opencv ] || exit 1
