# What the virtual machine does once it has a root: rows, one after the other. Each leaves what was printed in `/out/ROW.log`
# and the exit code in `/out/ROW.code`. `ATTACKERS` is a folder of the host; rows are at the end.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8
user=4000

: >/out/started

finish() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}
trap finish EXIT

mkdir -p /dev/pts /dev/shm /sys/fs/cgroup
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup /sys/fs/cgroup
echo '+memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
ip link set lo up

echo "someone:x:$user:$user::/scratch/someone:/bin/sh" >>/etc/passwd
echo "someone:x:$user:" >>/etc/group
echo 'someone:!::::::' >>/etc/shadow
for list in /etc/subuid /etc/subgid; do echo 'someone:100000:65536' >"$list"; done

chmod 755 /scratch
mkdir /scratch/bin /scratch/root /scratch/someone
chown "$user:$user" /scratch/someone
cp /out/cas /out/tests /scratch/bin
for home in /scratch/root /scratch/someone; do
    mkdir -p "$home/workspace" "$home/tmp"
done
chown -R "$user:$user" /scratch/someone

# Makes a group and hands it over, as `Delegate=yes` of systemd does: two folders deep, so that the upper one is nobody's.
hand_over() {
    mkdir -p /sys/fs/cgroup/service
    echo '+memory +pids' >/sys/fs/cgroup/service/cgroup.subtree_control
    mkdir "$1"
    chown "$2:$2" "$1" "$1/cgroup.procs" "$1/cgroup.subtree_control" "$1/cgroup.threads"
    # No program for it is in every installation; 188 is setxattr on this machine.
    for name in trusted.delegate user.delegate; do
        perl -e 'my ($group, $name, $value) = @ARGV; syscall(188, $group, $name, $value, 1, 0) == 0 or die "setxattr: $!"' \
            "$1" "$name" 1
    done
}

# `run WHO ROW SECONDS COMMAND…`
run() {
    who=$1 row=$2 seconds=$3
    shift 3
    case $who in
    root*) home=/scratch/root id=0 ;;
    *) home=/scratch/someone id=$user ;;
    esac
    case $who in
    *-with-group)
        group=/sys/fs/cgroup/service/$row
        hand_over "$group" "$id"
        ;;
    *-in-container)
        group=/sys/fs/cgroup/$row
        mkdir "$group"
        ;;
    *) group=/sys/fs/cgroup ;;
    esac
    set -- env -i PATH="$PATH" LC_ALL="$LC_ALL" HOME="$home" TMPDIR="$home/tmp" CAS_HOME="${store-$home/store}" \
        CAS_TEST_PROGRAM=/scratch/bin/cas ${attackers+CAS_TEST_ATTACKERS="$attackers"} "$@"
    [ "$id" = 0 ] || set -- setpriv --reuid="$id" --regid="$id" --clear-groups -- "$@"
    case $who in
    # The group is the uppermost one that can be seen.
    *-in-container)
        set -- unshare --cgroup --mount sh -euc \
            'umount /sys/fs/cgroup; mount -t cgroup2 cgroup /sys/fs/cgroup; exec "$@"' sh "$@"
        ;;
    esac
    # The part after `sh` is in the group from its start.
    timeout -k 10 "$seconds" sh -euc 'echo 0 >"$0/cgroup.procs"; exec "$@"' "$group" "$@" >"/out/$row.log" 2>&1 </dev/null
    echo $? >"/out/$row.code"
}

# `tests WHO ROW SECONDS ARGUMENT…`
tests() {
    cd /
    # Root compiles the programs that attack, where it may write, in a test that does little else.
    if [ ! -d /scratch/attackers ]; then
        run root attackers 300 env CI=1 /scratch/bin/tests --exact attacks::calls::each_attack_works_where_nothing_forbids_it
        cp -R "$ATTACKERS" /scratch/attackers && attackers=/scratch/attackers
    fi
    who=$1 row=$2 seconds=$3
    shift 3
    run "$who" "$row" "$seconds" env CI=1 /scratch/bin/tests --nocapture --test-threads 2 "$@"
}

# `both WHO ROW`: what the host can, and a build there, of a step that no row before had.
both() {
    run "$1" "$2.doctor" 60 /scratch/bin/cas doctor
    printf '[workspace]\n[toolchain.host]\nhost = {}\n[command.hello]\ntoolchain = ":host"\nrun = "echo %s >out"\noutputs = ["out"]\n' \
        "$2" >"$home/workspace/cas.toml"
    run "$1" "$2.build" 60 /scratch/bin/cas -C "$home/workspace" build
}

# `cas WHO ROW BEFORE MEND`: the same in a changed host, and once more after the mend, which is what `cas` says if it is `hint`.
cas() {
    eval "$3"
    both "$1" "$2"
    case $4 in
    '') ;;
    hint)
        line=$(sed -n 's/.*run `sudo \([^`]*\)`.*/\1/p' "/out/$2.doctor.log" | head -n 1)
        sh -euc "${line:-false}" >"/out/$2.mend.log" 2>&1
        echo $? >"/out/$2.mend.code"
        both "$1" "$2.after"
        ;;
    *)
        eval "$4"
        both "$1" "$2.after"
        ;;
    esac
}

