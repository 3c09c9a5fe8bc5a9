#!/bin/sh
# The first and only process tree of the guest: two video devices, then check.py, then off.
export PATH=/opt/pix2live/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/tmp/home LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs dev /dev
busybox mount -t tmpfs tmp /tmp
busybox mount -t tmpfs run /run
mkdir -p "$HOME" /dev/shm
busybox mount -t tmpfs shm /dev/shm
busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 results /results

# One webcam and nothing else of vivid's tuners, radios and codecs.
modprobe vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0
# As browsers and meeting programs need it: a camera only while somebody feeds it.
modprobe v4l2loopback devices=1 video_nr=9 exclusive_caps=1 card_label="pix2live"

for node in /sys/class/video4linux/video*; do
    case $(cat "$node/name") in vivid*) camera=/dev/${node##*/} ;; esac
done
echo "guest: camera ${camera:-none}, virtual camera $(ls /dev/video9), Linux $(uname -r)"

cd /tmp || exit
python /opt/acceptance/check.py "${camera:-/dev/video0}" /dev/video9 /results
echo $? >/results/status
sync
busybox poweroff -f
