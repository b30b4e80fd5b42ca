#!/bin/busybox sh
# First program of the virtual machine: makes a root of the host's files, with what is written kept in memory, and goes there.
/bin/busybox mkdir -p /proc /sys /dev /host /memory /new /usr/bin /usr/sbin /sbin
/bin/busybox --install -s
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in MODULES; do modprobe "$module" 2>/dev/null; done
share=trans=virtio,version=9p2000.L,msize=262144
mount -t 9p -o "ro,cache=loose,$share" host /host &&
    mount -t tmpfs memory /memory &&
    mkdir /memory/upper /memory/work &&
    mount -t overlay -o lowerdir=/host,upperdir=/memory/upper,workdir=/memory/work root /new &&
    mkdir -p /new/out /new/scratch &&
    mount -t 9p -o "rw,$share" out /new/out &&
    mount -t ext4 /dev/vda /new/scratch &&
    mount -t tmpfs run /new/run &&
    mount -t tmpfs -o mode=1777 tmp /new/tmp &&
    mount --move /dev /new/dev &&
    mount --move /sys /new/sys &&
    mount --move /proc /new/proc &&
    exec switch_root /new /bin/sh /out/guest.sh
echo "the root could not be made"
poweroff -f
