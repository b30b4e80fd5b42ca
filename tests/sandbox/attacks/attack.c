/*
 * One attack on the sandbox, named by the first argument. The tests run it in a sandbox, where each try must be refused, and
 * outside, where it must work, so that no row of the table proves only that the attack is broken.
 *
 * Each try prints a line: what was tried, and `done` or the name of the error. What it aims at comes by the environment:
 * SECRET (a file of the host), VICTIM (the id of a process of the host), ABSTRACT (the name of a socket), PORT (of the host's
 * loopback), KEY (of shared memory).
 *
 * Static, and by plain system calls: nothing of the root is needed, and no library stands between.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/fs.h>
#include <linux/if_alg.h>
#include <linux/io_uring.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/rtnetlink.h>
#include <linux/userfaultfd.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

/* Most results do not matter: what counts is what the host looks like afterwards. */
#pragma GCC diagnostic ignored "-Wunused-result"

/* Tells how a try ended, and gives its result on. */
static long tell(const char *what, long result) {
    printf("%s: %s\n", what, result >= 0 ? "done" : strerrorname_np(errno));
    fflush(stdout);
    return result;
}

static const char *given(const char *name) {
    const char *value = getenv(name);
    if (!value) {
        fprintf(stderr, "%s is not set\n", name);
        exit(2);
    }
    return value;
}

/* Whether what could harm the host may be tried: nowhere else is a program process 2. */
static int in_sandbox(void) { return getpid() == 2; }

/* Runs a part in a process of its own, because it changes what the process may do. */
static void apart(void (*part)(void)) {
    pid_t child = fork();
    if (child == 0) {
        part();
        _exit(0);
    }
    waitpid(child, NULL, 0);
}

/* ---- calls that a step does not have ---- */

static void io_uring(void) {
    struct io_uring_params parameters = {0};
    tell("io_uring_setup", syscall(SYS_io_uring_setup, 1, &parameters));
}

static void bpf(void) {
    union bpf_attr attributes = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    tell("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof attributes));
}

static void userfaultfd(void) { tell("userfaultfd", syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY)); }

static void perf(void) {
    struct perf_event_attr event = {
        .type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_TASK_CLOCK, .exclude_kernel = 1};
    tell("perf_event_open", syscall(SYS_perf_event_open, &event, 0, -1, -1, 0));
}

static void keys(void) {
    tell("add_key", syscall(SYS_add_key, "user", "cas-attack", "x", 1, -2 /* of the process */));
    tell("keyctl", syscall(SYS_keyctl, 0 /* id of */, -3 /* the session's */, 1));
    long result = syscall(SYS_request_key, "user", "cas-attack", NULL, -2);
    tell("request_key", result);
}

static void kernel_log(void) {
    char text[256];
    tell("syslog", syscall(SYS_syslog, 3 /* read all */, text, sizeof text));
}

static void personalities(void) {
    tell("READ_IMPLIES_EXEC", personality(READ_IMPLIES_EXEC));
    tell("ADDR_COMPAT_LAYOUT", personality(ADDR_COMPAT_LAYOUT));
}

/* ---- networks ---- */

static void families(void) {
    tell("AF_ALG", socket(AF_ALG, SOCK_SEQPACKET, 0));
    tell("AF_VSOCK", socket(AF_VSOCK, SOCK_STREAM, 0));
    tell("AF_PACKET", socket(AF_PACKET, SOCK_RAW, 0));
    tell("NETLINK_GENERIC", socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC));
    tell("NETLINK_SOCK_DIAG", socket(AF_NETLINK, SOCK_RAW, NETLINK_SOCK_DIAG));
    tell("NETLINK_KOBJECT_UEVENT", socket(AF_NETLINK, SOCK_RAW, NETLINK_KOBJECT_UEVENT));
}

/* Asks for a link of the kind `dummy`; for a right over the network. */
static void netlink(void) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
        struct rtattr info, kind;
        char name[8];
    } request = {
        .header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_SETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
        .link = {.ifi_family = AF_UNSPEC, .ifi_index = 1, .ifi_change = IFF_UP, .ifi_flags = IFF_UP},
    };
    request.header.nlmsg_len = offsetof(typeof(request), info);
    struct {
        struct nlmsghdr header;
        struct nlmsgerr error;
        char rest[256];
    } answer;
    int descriptor = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    send(descriptor, &request, request.header.nlmsg_len, 0);
    recv(descriptor, &answer, sizeof answer, 0);
    errno = -answer.error.error;
    tell("RTM_SETLINK", errno ? -1 : 0);
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    tell("SOCK_RAW", raw);
}

static void abstract_socket(void) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *name = given("ABSTRACT");
    strcpy(address.sun_path + 1, name);
    int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name);
    tell("connect", connect(descriptor, (struct sockaddr *)&address, length));
}

static void loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(given("PORT")))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    tell("connect", connect(socket(AF_INET, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof address));
}

/* For the tests, on the host. */
static void make_shared_memory(void) { tell("shmget", shmget(strtol(given("KEY"), NULL, 0), 64, IPC_CREAT | 0666)); }
static void remove_shared_memory(void) { shmctl(shmget(strtol(given("KEY"), NULL, 0), 0, 0), IPC_RMID, NULL); }

static void shared_memory(void) { tell("shmget", shmget(strtol(given("KEY"), NULL, 0), 0, 0)); }

/* ---- namespaces and mounts ---- */

static const struct { const char *name; int flag; } NAMESPACES[] = {
    {"user", CLONE_NEWUSER}, {"mount", CLONE_NEWNS},   {"pid", CLONE_NEWPID},       {"network", CLONE_NEWNET},
    {"ipc", CLONE_NEWIPC},   {"uts", CLONE_NEWUTS},    {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80},
};

static int flags_now;
static const char *name_now;

static void unshare_now(void) { tell(name_now, unshare(flags_now)); }

/* Each kind together with a user namespace, which needs no right, and one alone. */
static void nested_namespaces(void) {
    char text[64];
    name_now = text;
    for (size_t i = 0; i < sizeof NAMESPACES / sizeof *NAMESPACES; i++) {
        snprintf(text, sizeof text, "unshare %s", NAMESPACES[i].name);
        flags_now = CLONE_NEWUSER | NAMESPACES[i].flag;
        apart(unshare_now);
    }
    long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (child == 0) _exit(0);
    tell("clone", child);
    struct { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls; } arguments = {
        .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD};
    child = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (child == 0) _exit(0);
    tell("clone3", child);
    while (wait(NULL) > 0) {}
}

static void enter(const char *what, const char *path) {
    int descriptor = open(path, O_RDONLY);
    tell(what, descriptor < 0 ? -1 : setns(descriptor, 0));
}

/* Into the namespaces of process 1's parent, by those of process 1 and by the kernel's question for it. */
static void set_namespace(void) {
    enter("setns of process 1", "/proc/1/ns/net");
    enter("setns of itself", "/proc/self/ns/net");
    int own = open("/proc/self/ns/user", O_RDONLY);
    int parent = ioctl(own, 0xb702 /* NS_GET_PARENT */);
    tell("parent of the user namespace", parent);
}

static void mounts(void) {
    tell("mount tmpfs", mount("none", "/tmp", "tmpfs", 0, NULL));
    tell("mount proc", mount("none", "/tmp", "proc", 0, NULL));
    tell("mount sysfs", mount("none", "/tmp", "sysfs", 0, NULL));
    tell("bind", mount("/", "/tmp", NULL, MS_BIND | MS_REC, NULL));
    tell("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1 /* clone */));
    tell("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    tell("remount /proc/sys", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    tell("propagation", mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL));
    tell("umount", umount2("/proc/sys", MNT_DETACH));
    tell("pivot_root", syscall(SYS_pivot_root, ".", "."));
    tell("chroot", chroot("/tmp"));
    tell("name of the host", sethostname("attack", 6));
}

/* CVE-2022-0492: a hierarchy of control groups whose release agent the host runs. CVE-2023-25809: a writable one. */
static void control_groups(void) {
    tell("mount cgroup2", mount("none", "/tmp", "cgroup2", 0, NULL));
    tell("mount cgroup", mount("none", "/tmp", "cgroup", 0, "rdma"));
    tell("/sys/fs/cgroup", open("/sys/fs/cgroup/cgroup.procs", O_RDWR));
}

#if defined(__x86_64__)
/* The 32-bit interface, from a 64-bit program. */
static long old(long number, long first, long second, long third) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(first), "c"(second), "d"(third) : "memory", "r8", "r9", "r10", "r11");
    if (result < 0 && result > -4096) {
        errno = -result;
        return -1;
    }
    return result;
}

static void other_interface(void) {
    tell("getpid", old(20, 0, 0, 0) > 0 ? 0 : -1);
    uint32_t *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    low[0] = AF_NETLINK, low[1] = SOCK_RAW, low[2] = NETLINK_GENERIC;
    tell("socketcall", old(102, 1, (long)low, 0));
    tell("socket", old(359, AF_NETLINK, SOCK_RAW, NETLINK_GENERIC));
    tell("keyctl", old(288, 0, -3, 1));
    tell("io_uring_setup", old(425, 1, (long)memset(low, 0, 4096), 0));
    fflush(stdout);
    long child = fork();
    if (child == 0) {
        tell("unshare", old(310, CLONE_NEWUSER, 0, 0));
        _exit(0);
    }
    waitpid(child, NULL, 0);
}
#endif

/* ---- files of the host ---- */

/* `shocker`: a file by its handle, past all mounts. */
static void file_handles(void) {
    struct { struct file_handle handle; char bytes[128]; } handle = {.handle.handle_bytes = 128};
    int mount_id, folder = open("/", O_RDONLY);
    tell("name_to_handle_at", name_to_handle_at(AT_FDCWD, given("BASE"), &handle.handle, &mount_id, 0));
    int descriptor = open_by_handle_at(folder, &handle.handle, O_RDONLY);
    if (descriptor < 0 && errno == EINVAL) errno = ESTALE;
    tell("open_by_handle_at", descriptor);
}

static void host_files(void) {
    const char *secret = given("SECRET");
    char path[4096];
    tell("by its path", open(secret, O_RDONLY));
    snprintf(path, sizeof path, "../../../../../../../../../../../..%s", secret);
    tell("by ..", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/1/root%s", secret);
    tell("by the root of process 1", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/self/root%s", secret);
    tell("by its own root", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/1/cwd%s", secret);
    tell("by the folder of process 1", open(path, O_RDONLY));
    snprintf(path, sizeof path, "/proc/%s/root%s", given("VICTIM"), secret);
    tell("by the root of a process outside", open(path, O_RDONLY));
    int link = symlink(secret, "link") < 0 && errno != EEXIST ? -1 : open("link", O_RDONLY);
    tell("by a symbolic link", link);
    unlink("link");
}

/* Processes and what they have: environment, memory, descriptors, program. */
static void process_of(const char *id) {
    static const char *const FILES[] = {"environ", "mem", "maps", "auxv", "stack", "syscall"};
    static const char *const LINKS[] = {"exe", "cwd", "root", "fd/0", "fd/3", "ns/mnt"};
    char path[128], text[4096];
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s", id, FILES[i]);
        int descriptor = open(path, O_RDONLY);
        long result = descriptor < 0 ? -1 : read(descriptor, text, sizeof text);
        if (descriptor >= 0 && result < 0 && errno == EIO) result = 0; /* memory, opened: address 0 has nothing */
        if (descriptor >= 0 && result == 0 && strcmp(FILES[i], "mem")) result = -1, errno = EACCES; /* empty when refused */
        tell(FILES[i], result);
    }
    for (size_t i = 0; i < sizeof LINKS / sizeof *LINKS; i++) {
        snprintf(path, sizeof path, "/proc/%s/%s", id, LINKS[i]);
        tell(LINKS[i], readlink(path, text, sizeof text));
    }
}

static void process_outside(void) { process_of(given("VICTIM")); }

static void process_one(void) { process_of("1"); }

/* A process that looks at the files of another one has to find it: all that are shown. */
static void processes(void) {
    DIR *folder = opendir("/proc");
    struct dirent *entry;
    int others = 0;
    while ((entry = readdir(folder))) {
        int id = atoi(entry->d_name);
        others += id > 1 && id != getpid();
    }
    errno = ENOENT;
    tell("others in /proc", others ? 0 : -1);
}

static void signals(void) {
    pid_t victim = atoi(given("VICTIM"));
    struct iovec here = {.iov_base = &here, .iov_len = 8}, there = {.iov_base = (void *)0x400000, .iov_len = 8};
    tell("kill", kill(victim, 0));
    tell("sigqueue", sigqueue(victim, SIGCONT, (union sigval){0}));
    tell("pidfd_open", syscall(SYS_pidfd_open, victim, 0));
    tell("ptrace", ptrace(PTRACE_SEIZE, victim, 0, 0));
    if (process_vm_readv(victim, &here, 1, &there, 1, 0) < 0 && errno != EFAULT)
        tell("process_vm_readv", -1);
    else
        tell("process_vm_readv", 0);
    tell("kcmp", syscall(SYS_kcmp, getpid(), victim, 2 /* their files */, 0, 0));
    struct rlimit_ { uint64_t soft, hard; } limit;
    tell("prlimit", syscall(SYS_prlimit64, victim, 7, NULL, &limit));
    tell("sched_getaffinity", syscall(SYS_sched_getaffinity, victim, 128, (char[128]){0}));
}

/* What process 1 is sent from inside is dropped, and it cannot be traced. */
static void process_one_signals(void) {
    static const int SIGNALS[] = {SIGKILL, SIGSTOP, SIGTERM, SIGINT, SIGHUP, SIGSEGV};
    for (size_t i = 0; in_sandbox() && i < sizeof SIGNALS / sizeof *SIGNALS; i++) kill(1, SIGNALS[i]);
    tell("ptrace", ptrace(PTRACE_SEIZE, 1, 0, 0));
    int process = syscall(SYS_pidfd_open, 1, 0);
    tell("pidfd_getfd", syscall(SYS_pidfd_getfd, process, 0, 0));
    /* All that it may signal; this process is spared by the kernel. */
    if (in_sandbox()) kill(-1, SIGKILL);
    errno = EPERM;
    tell("kill all", getppid() == 1 || getppid() == 0 ? -1 : 0);
}

/* CVE-2024-21626: a descriptor of the host, or a working directory there, that was left open. */
static void descriptors(void) {
    char path[64], text[4096];
    int found = 0;
    for (int descriptor = 3; descriptor < 65536; descriptor++) found += fcntl(descriptor, F_GETFD) >= 0;
    errno = EBADF;
    tell("inherited", found ? 0 : -1);
    for (int descriptor = 0; descriptor < 3; descriptor++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d/..", descriptor);
        tell("above a stream", open(path, O_RDONLY));
    }
    errno = ENOENT;
    tell("folder", getcwd(text, sizeof text) && text[0] == '/' && strcmp(text, given("FOLDER")) == 0 ? -1 : 0);
}

/* The host's devices and the covers over parts of /proc: their owner may be the step's user. */
static void shown_files(void) {
    static const char *const FILES[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom",
                                        "/dev/tty", "/proc/kcore", "/proc/interrupts", "/proc/timer_list"};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        struct stat stat_;
        if (stat(FILES[i], &stat_) < 0) continue;
        if (chmod(FILES[i], stat_.st_mode & 07777) == 0) printf("chmod %s: done\n", FILES[i]);
        if (utimensat(AT_FDCWD, FILES[i], NULL, 0) == 0) printf("touch %s: done\n", FILES[i]);
    }
    int descriptor = open("/dev/null", O_RDWR);
    tell("chmod of /dev/null, open", fchmod(descriptor, 0666));
}

static void writable_below(const char *folder, int depth) {
    DIR *directory = opendir(folder);
    struct dirent *entry;
    while (directory && (entry = readdir(directory))) {
        char path[4096];
        struct stat stat_;
        const char *name = entry->d_name;
        if (name[0] == '.' || (depth == 0 && (atoi(name) || !strcmp(name, "self") || !strcmp(name, "thread-self")))) continue;
        snprintf(path, sizeof path, "%s/%s", folder, name);
        if (lstat(path, &stat_) < 0 || S_ISLNK(stat_.st_mode)) continue;
        if (S_ISDIR(stat_.st_mode)) {
            writable_below(path, depth + 1);
            continue;
        }
        /* What is covered is the null device. */
        if (S_ISCHR(stat_.st_mode) && stat_.st_rdev == makedev(1, 3)) continue;
        int descriptor = open(path, O_WRONLY | O_NONBLOCK);
        if (descriptor >= 0) printf("%s: done\n", path);
        close(descriptor);
    }
    if (directory) closedir(directory);
}

/* Any part of /proc that is no process's own. */
static void kernel_settings(void) {
    if (in_sandbox()) writable_below("/proc", 0);
    tell("core_pattern", open("/proc/sys/kernel/core_pattern", O_WRONLY));
    tell("modprobe", open("/proc/sys/kernel/modprobe", O_WRONLY));
    tell("sysrq", open("/proc/sysrq-trigger", O_WRONLY));
    tell("memory", open("/proc/kcore", O_RDONLY) < 0 ? -1 : read(open("/proc/kcore", O_RDONLY), (char[4]){0}, 4) > 0 ? 0 : (errno = ENODATA, -1));
}

static void device_nodes(void) {
    tell("mknod of memory", mknod("memory", S_IFCHR | 0666, makedev(1, 1)));
    tell("mknod of null", mknod("null", S_IFCHR | 0666, makedev(1, 3)));
    tell("mknod of a disk", mknod("disk", S_IFBLK | 0666, makedev(7, 0)));
    tell("mknod of a whiteout", mknod("whiteout", S_IFCHR | 0666, makedev(0, 0)));
    tell("console", open("/dev/console", O_RDWR));
}

/* CVE-2017-5226 of bubblewrap: typing into the terminal, here one of its own. */
static void terminal(void) {
    int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), unlock = 0, number = 0;
    char path[64];
    ioctl(master, TIOCSPTLCK, &unlock);
    ioctl(master, TIOCGPTN, &number);
    snprintf(path, sizeof path, "/dev/pts/%d", number);
    if (fork() == 0) {
        setsid();
        int slave = open(path, O_RDWR);
        ioctl(slave, TIOCSCTTY, 0);
        tell("TIOCSTI", ioctl(slave, TIOCSTI, "x"));
        if (ioctl(slave, TIOCLINUX, (char[]){2}) == 0) tell("TIOCLINUX", 0);
        _exit(0);
    }
    wait(NULL);
}

/* Whoever opens a file with a lease waits; a watch of this kind tells which process did it. */
static void leases(void) {
    char path[] = "/tmp/lease-XXXXXX";
    int own = mkstemp(path);
    unlink(path);
    tell("F_SETLEASE", fcntl(own, F_SETLEASE, F_WRLCK));
    tell("fanotify_init", syscall(SYS_fanotify_init, 0x200, 0));
}

/* ---- what a step may write, and what it may not ---- */

/* Every way to change a file that is known here, on `input`, `folder/inner` and `script` of the working directory. */
static void write_inputs(void) {
    int descriptor = open("input", O_RDWR);
    void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (memory != MAP_FAILED) memcpy(memory, "mapped", 6), msync(memory, 4096, MS_SYNC);
    pwrite(descriptor, "written", 7, 0);
    fallocate(descriptor, 0, 0, 8192);
    ftruncate(descriptor, 3);
    fchmod(descriptor, 0777);
    futimens(descriptor, NULL);
    fsetxattr(descriptor, "user.cas", "x", 1, 0);
    int flags = FS_NOATIME_FL;
    ioctl(descriptor, FS_IOC_SETFLAGS, &flags);
    /* A descriptor from before the file was copied, opened again for writing. */
    int early = open("folder/inner", O_RDONLY);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", early);
    int again = open(path, O_WRONLY | O_TRUNC);
    write(again, "again", 5);
    fchmod(early, 0777);
    fsetxattr(early, "user.cas", "x", 1, 0);
    ioctl(early, FS_IOC_SETFLAGS, &flags);
    linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW);
    int linked = open("linked", O_WRONLY | O_APPEND);
    write(linked, "linked", 6);
    ioctl(linked, FICLONE, descriptor);
    rename("script", "renamed");
    truncate("renamed", 1);
    chmod("folder", 0700);
    chmod(".", 0700);
    unlink("input");
    tell("all", 0);
}

/* Two processes, one of which moves and links what the other opens, writes and cuts. */
static void race_of_copies(void) {
    pid_t child = fork();
    for (int i = 0; i < 200; i++) {
        if (child == 0) {
            rename("input", "moved");
            link("moved", "third");
            rename("moved", "input");
            unlink("third");
        } else {
            static const char *const NAMES[] = {"input", "moved", "third", "folder/inner"};
            int descriptor = open(NAMES[i % 4], O_WRONLY | (i % 8 < 4 ? O_TRUNC : 0));
            write(descriptor, "raced", 5);
            fchmod(descriptor, 0777);
            close(descriptor);
        }
    }
    if (child == 0) _exit(0);
    waitpid(child, NULL, 0);
    tell("all", 0);
}

/* The notes of the overlay, by which what is written would be read as something else. */
static void overlay_notes(void) {
    mkdir("forged", 0755);
    close(open("forged/file", O_CREAT | O_WRONLY, 0644));
    static const char *const NOTES[] = {"opaque", "redirect", "metacopy", "origin", "whiteout", "whiteouts"};
    for (size_t i = 0; i < sizeof NOTES / sizeof *NOTES; i++) {
        char name[64];
        snprintf(name, sizeof name, "user.overlay.%s", NOTES[i]);
        setxattr("forged", name, "y", 1, 0);
        setxattr("forged/file", name, "/input", 6, 0);
        setxattr("folder", name, "y", 1, 0);
        snprintf(name, sizeof name, "trusted.overlay.%s", NOTES[i]);
        setxattr("forged", name, "y", 1, 0);
    }
    tell("whiteout", mknod("input2", S_IFCHR, makedev(0, 0)));
}

/* ---- not ending ---- */

static void append(const char *file) {
    int descriptor = open(file, O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0666);
    write(descriptor, "x", 1);
    close(descriptor);
}

/* A process that has left its session and its parent, has every signal blocked or ignored, wakes by a timer, and works in the
 * folder that outlives the run. */
static void detach(void) {
    int ready[2];
    char byte;
    pipe(ready);
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            sigset_t all;
            sigfillset(&all);
            sigprocmask(SIG_BLOCK, &all, NULL);
            for (int signal_ = 1; signal_ < 65; signal_++) signal(signal_, SIG_IGN);
            chdir("kept");
            append("beats");
            write(ready[1], "x", 1);
            for (;;) {
                append("beats");
                struct timespec pause_ = {.tv_nsec = 500000};
                syscall(SYS_nanosleep, &pause_, NULL);
            }
        }
        _exit(0);
    }
    wait(NULL);
    read(ready[0], &byte, 1);
    tell("left behind", 0);
}

/* A process that is never the same one for long. */
static void hop(void) {
    int ready[2];
    char byte;
    pipe(ready);
    if (fork() == 0) {
        for (long i = 0;; i++) {
            if (fork() > 0) _exit(0);
            setsid();
            if (i % 16 == 0) append("kept/beats");
            if (i == 32) write(ready[1], "x", 1);
        }
    }
    read(ready[0], &byte, 1);
    tell("left behind", 0);
}

/* A name that is a folder at one moment and a link out of the sandbox at the next, until the end and after it. */
static void flip(void) {
    int ready[2];
    char byte;
    pipe(ready);
    mkdir("out", 0755);
    append("out/secret");
    symlink(given("TARGET"), "link");
    if (fork() == 0) {
        setsid();
        for (long i = 0;; i++) {
            syscall(SYS_renameat2, AT_FDCWD, "out", AT_FDCWD, "link", 2 /* exchange */);
            if (i == 8) write(ready[1], "x", 1);
        }
    }
    read(ready[0], &byte, 1);
    tell("left behind", 0);
}

/* ---- rights ---- */

/* Run as a file with set-id bits and capabilities: what it has then. */
static void rights(void) {
    FILE *status = fopen("/proc/self/status", "r");
    char line[256];
    unsigned long long effective = 0;
    while (fgets(line, sizeof line, status)) sscanf(line, "CapEff: %llx", &effective);
    errno = EPERM;
    tell("user", geteuid() != getuid() || getegid() != getgid() ? 0 : -1);
    tell("capabilities", effective ? 0 : -1);
    gid_t groups[64];
    tell("groups", getgroups(64, groups) > 0 ? 0 : -1);
}

/* Becoming somebody else. */
static void identities(void) {
    static const int IDS[] = {0, 1, 65534, 65536};
    char text[64];
    for (size_t i = 0; i < sizeof IDS / sizeof *IDS; i++) {
        if ((uid_t)IDS[i] == getuid()) continue;
        snprintf(text, sizeof text, "user %d", IDS[i]);
        tell(text, syscall(SYS_setreuid, -1, IDS[i]));
        snprintf(text, sizeof text, "owner %d", IDS[i]);
        int descriptor = open("owned", O_CREAT | O_WRONLY, 0600);
        tell(text, fchown(descriptor, IDS[i], -1));
    }
    tell("groups", syscall(SYS_setgroups, 1, (gid_t[]){0}));
    tell("nice", syscall(SYS_setpriority, 0, 0, -20));
}

/* ---- checks ---- */

/* A program of the root is in turn a harmless one and a script that makes the kernel execute the file of whoever starts it. */
static void swap(void) {
    for (;;) syscall(SYS_renameat2, AT_FDCWD, "/bin/check", AT_FDCWD, "/bin/script", 2 /* RENAME_EXCHANGE */);
}

/* The helper's file, by processes that have not become their program yet. */
static void helpers(void) {
    for (;;) {
        DIR *processes = opendir("/proc");
        struct dirent *entry;
        while ((entry = readdir(processes))) {
            char path[300], target[300];
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            ssize_t length = readlink(path, target, sizeof target - 1);
            if (length < 0) continue;
            target[length] = 0;
            if (!strncmp(target, "/bin/", 5)) continue;
            tell(target, 0);
            return;
        }
        closedir(processes);
    }
}

static const struct { const char *name; void (*attack)(void); } ATTACKS[] = {
    {"io_uring", io_uring}, {"bpf", bpf}, {"userfaultfd", userfaultfd}, {"perf", perf}, {"keys", keys},
    {"kernel log", kernel_log}, {"personalities", personalities}, {"families", families}, {"netlink", netlink},
    {"abstract socket", abstract_socket}, {"loopback", loopback}, {"shared memory", shared_memory},
    {"make shared memory", make_shared_memory}, {"remove shared memory", remove_shared_memory},
    {"nested namespaces", nested_namespaces}, {"set namespace", set_namespace}, {"mounts", mounts},
    {"control groups", control_groups}, {"file handles", file_handles}, {"host files", host_files},
    {"process outside", process_outside}, {"process 1", process_one}, {"processes", processes}, {"signals", signals},
    {"signals to process 1", process_one_signals}, {"descriptors", descriptors}, {"shown files", shown_files},
    {"kernel settings", kernel_settings}, {"device nodes", device_nodes}, {"terminal", terminal}, {"leases", leases}, {"rights", rights},
    {"identities", identities}, {"write inputs", write_inputs}, {"race of copies", race_of_copies},
    {"overlay notes", overlay_notes}, {"detach", detach}, {"hop", hop}, {"flip", flip}, {"swap", swap}, {"helpers", helpers},
#if defined(__x86_64__)
    {"other interface", other_interface},
#endif
};

int main(int count, char **arguments) {
    for (size_t i = 0; count > 1 && i < sizeof ATTACKS / sizeof *ATTACKS; i++) {
        if (!strcmp(ATTACKS[i].name, arguments[1])) {
            ATTACKS[i].attack();
            return 0;
        }
    }
    fprintf(stderr, "no such attack\n");
    return 2;
}
