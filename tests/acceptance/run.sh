#!/usr/bin/env bash
# A real V4L2 camera and a real virtual camera, on a machine that has neither.
#
# Boots Debian's own kernel in qemu (software emulation: no KVM, no hardware asked for), where
# the kernel's test camera "vivid" and v4l2loopback are loaded and the installed `pix2live` runs
# between them. What runs inside is guest.sh, what is judged is check.py.
#
# The first run builds a root file system (minutes, about 2 GB); later runs reuse it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(cd "$here/../.." && pwd)
cache=${PIX2LIVE_ACCEPTANCE_CACHE:-$repo/.acceptance}
limit_s=${PIX2LIVE_ACCEPTANCE_LIMIT_S:-1200}
python=${PYTHON:-python3}
root=$cache/root
wheels=$cache/wheels
results=$cache/results

say() { printf 'acceptance: %s\n' "$*"; }
die() {
    printf 'acceptance: %s\n' "$*" >&2
    exit 1
}

need_host_packages() {
    [ "$(uname -m)" = x86_64 ] || die "written for x86_64, this is $(uname -m)"
    local missing=()
    command -v qemu-system-x86_64 >/dev/null || missing+=(qemu-system-x86)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    "$python" -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
    if [ ${#missing[@]} -gt 0 ]; then
        local line="apt-get install --no-install-recommends ${missing[*]}"
        [ "$(id -u)" = 0 ] || die "packages are missing; as root, run: $line"
        say "$line"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive $line -qq -y >"$cache/apt.log" 2>&1 ||
            die "installing packages failed: see $cache/apt.log"
    fi
    # The root file system is a plain folder with a chroot in it.
    [ "$(id -u)" = 0 ] || die "needs root for the chroot; run: sudo make acceptance"
}

# The mirrors this host already uses, so that a local mirror or a proxy goes on working.
debian_sources() {
    # shellcheck disable=SC2016  # apt fills these in
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' 'Origin: Debian'
}

build_root() {
    # dkms compiles v4l2loopback for the kernel that is installed beside it; the three lib*
    # packages are what OpenCV needs on a machine without a desktop.
    local packages=(linux-image-amd64 linux-headers-amd64 v4l2loopback-dkms kmod busybox-static
        v4l-utils python3 python3-venv libgl1 libxcb1 libglib2.0-0)
    [ "$(cat "$root/.built" 2>/dev/null)" = "${packages[*]}" ] && return
    # shellcheck source=/dev/null
    local codename && codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    local sources && sources=$(debian_sources)
    [ -n "$sources" ] || die "no Debian package source on this host (written for Debian 12)"
    say "building the root file system (once; log: $cache/root.log)"
    rm -rf --one-file-system "$root" "$cache/initrd.img"
    mmdebstrap --mode=root --variant=apt --aptopt='APT::Install-Recommends "false"' \
        --include="$(IFS=, && echo "${packages[*]}")" "$codename" "$root" - \
        <<<"$sources" >"$cache/root.log" 2>&1 || die "failed: see $cache/root.log"
    mkdir -p "$root/opt/acceptance" "$root/results"
    [ -n "$(find "$root/lib/modules/" -name 'v4l2loopback.ko*')" ] ||
        die "v4l2loopback was not built: see $cache/root.log"
    echo "${packages[*]}" >"$root/.built"
}

# Just enough to mount the root file system over 9p: busybox and five or so modules.
build_initrd() {
    local kernel=$1 tree=$cache/initrd
    [ -e "$cache/initrd.img" ] && return
    rm -rf "$tree"
    mkdir -p "$tree/bin" "$tree/modules" "$tree/newroot"
    cp "$root/bin/busybox" "$tree/bin/"
    local module count=100
    chroot "$root" modprobe -S "$kernel" --show-depends -a virtio_pci 9p 9pnet_virtio |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' |
        while read -r module; do # numbered: loaded in this order
            cp "$root$module" "$tree/modules/$((count++))-${module##*/}"
        done
    cat >"$tree/init" <<'INIT'
#!/bin/busybox sh
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=512000,cache=loose root /newroot
exec /bin/busybox switch_root /newroot /opt/acceptance/guest.sh
INIT
    chmod +x "$tree/init"
    (cd "$tree" && find . | "$root/bin/busybox" cpio -o -H newc) 2>/dev/null |
        gzip >"$cache/initrd.img.part"
    mv "$cache/initrd.img.part" "$cache/initrd.img"
}

# The wheel a user would get, with its default dependencies, into a virtual environment of the
# guest's own Python. The host's pip downloads (it knows the way out), the guest's installs.
install_pix2live() {
    local version && version=$(chroot "$root" python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    local glibc && glibc=$(chroot "$root" python3 -c 'import platform; print(platform.libc_ver()[1].split(".")[1])')
    local wanted && wanted=$(cat "$repo/pyproject.toml" "$repo/constraints.txt" | sha256sum)
    local platforms=(--platform manylinux2014_x86_64) minor
    for minor in $(seq 17 "$glibc"); do platforms+=(--platform "manylinux_2_${minor}_x86_64"); done

    local current=no
    [ "$(cat "$root/.installed" 2>/dev/null)" = "$wanted" ] && current=yes
    [ $current = yes ] || rm -rf "$wheels" "$root/opt/pix2live" "$root/.installed"
    rm -rf "$wheels"/pix2live-*.whl "$cache/source"
    mkdir -p "$wheels" "$cache/source"
    # From a copy, and of what git would keep: a build must not leave folders in the checkout.
    (cd "$repo" && git ls-files -z --cached --others --exclude-standard |
        tar -c --null --files-from=- --ignore-failed-read) | tar -x -C "$cache/source" ||
        die "cannot copy the checkout (it must be a git working tree)"
    say "building the wheel"
    "$python" -m pip wheel -q --no-deps -w "$wheels" "$cache/source"
    rm -rf "$cache/source"

    if [ $current = no ]; then
        say "downloading the default dependencies for Python $version"
        "$python" -m pip download -q -d "$wheels" --only-binary=:all: --implementation cp \
            --python-version "$version" "${platforms[@]}" --constraint "$repo/constraints.txt" \
            "$wheels"/pix2live-*.whl
        chroot "$root" python3 -m venv /opt/pix2live
    fi
    rm -rf "$root/wheels"
    cp -r "$wheels" "$root/wheels"
    local pip=(chroot "$root" /opt/pix2live/bin/pip --isolated install -q --no-index --find-links /wheels)
    [ $current = yes ] || "${pip[@]}" pix2live
    [ $current = no ] || "${pip[@]}" --no-deps --force-reinstall pix2live
    rm -rf "$root/wheels"
    echo "$wanted" >"$root/.installed"
}

boot() {
    local kernel=$1
    install -m 755 "$here/guest.sh" "$here/check.py" "$root/opt/acceptance/"
    rm -rf "$results"
    mkdir -p "$results"
    say "booting Linux $kernel under emulation (limit ${limit_s} s)"
    # No network: what runs inside must need none.
    timeout --foreground "$limit_s" qemu-system-x86_64 \
        -accel tcg,thread=multi -cpu max -smp 2 -m 3072 -nic none \
        -display none -monitor none -serial stdio -no-reboot \
        -kernel "$root/boot/vmlinuz-$kernel" -initrd "$cache/initrd.img" \
        -append "console=ttyS0 quiet loglevel=3 panic=-1" \
        -virtfs "local,path=$root,mount_tag=root,security_model=none,readonly=on,multidevs=remap" \
        -virtfs "local,path=$results,mount_tag=results,security_model=none" \
        </dev/null 2>&1 | sed -u 's/\r$//' | tee "$results/console.log"
}

mkdir -p "$cache"
SECONDS=0
need_host_packages
build_root
kernel=$(basename "$(echo "$root"/lib/modules/*)")
build_initrd "$kernel"
install_pix2live
boot "$kernel" || die "qemu ended badly or ran past its limit: see $results/console.log"
echo
status=$(cat "$results/status" 2>/dev/null || echo "none")
[ "$status" = 0 ] || die "FAILED in ${SECONDS} s (guest status: $status); see $results"
say "passed in ${SECONDS} s; pictures: $(echo "$results"/*.png)"
