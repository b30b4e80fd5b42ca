/*
 * Runs a program as on a kernel that lacks one system call: a filter answers it with ENOSYS, for all that the program starts, too.
 * Filters themselves are made by prctl, which is always there.
 *
 *     without CALL PROGRAM ARGUMENT...
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef __x86_64__
#define AUDIT AUDIT_ARCH_X86_64
#else
#define AUDIT AUDIT_ARCH_AARCH64
#endif

static const struct {
    const char *name;
    unsigned number;
} calls[] = {
    {"bpf", SYS_bpf},
    {"close_range", SYS_close_range},
    {"fsopen", SYS_fsopen},
    {"mount_setattr", SYS_mount_setattr},
    {"move_mount", SYS_move_mount},
    {"open_tree", SYS_open_tree},
    {"openat2", SYS_openat2},
    {"pidfd_open", SYS_pidfd_open},
    {"seccomp", SYS_seccomp},
};

int main(int count, char **arguments) {
    unsigned call = 0;
    for (size_t at = 0; count > 2 && at < sizeof calls / sizeof *calls; at++) {
        if (strcmp(calls[at].name, arguments[1]) == 0) {
            call = calls[at].number;
        }
    }
    if (call == 0) {
        fprintf(stderr, "usage: without CALL PROGRAM ARGUMENT...\n");
        return 2;
    }
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("without");
        return 2;
    }
    execv(arguments[2], arguments + 2);
    perror(arguments[2]);
    return 127;
}
