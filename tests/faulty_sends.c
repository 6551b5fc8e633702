/* A sendmmsg that fails as it is told to, put before the C library's by LD_PRELOAD: faulty_sends.py. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>

int fault_errno, fault_times, fault_runs_only;

int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags) {
    static int (*real)(int, struct mmsghdr *, unsigned int, int);
    if (!real)
        real = (int (*)(int, struct mmsghdr *, unsigned int, int))dlsym(RTLD_NEXT, "sendmmsg");
    for (unsigned int i = 0; i < count && fault_times > 0; i++) {
        if (fault_runs_only && messages[i].msg_hdr.msg_iovlen == 1)
            continue;
        if (i > 0)
            return real(fd, messages, i, flags); /* as the kernel does: up to the one that fails */
        fault_times--;
        errno = fault_errno;
        return -1;
    }
    return real(fd, messages, count, flags);
}
