/* The least that forwards datagrams: recvmmsg, copy, sendmmsg. No parsing, no tables, no crypto.
   What bench_fastpath.py holds the socket loop against; it compiles this and calls it through ctypes. */

#define _GNU_SOURCE
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { BATCH = 64, SEND = 256, SIZE = 2048 };

static char in[BATCH][SIZE], out[SEND][SIZE];

static double cpu(void) {
    struct timespec at;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
    return at.tv_sec + at.tv_nsec * 1e-9;
}

/* Forward what waits in a socket, each datagram to `copies` of the receivers in turn; returns CPU seconds. */
double floor_run(int fd, const struct sockaddr_in *receivers, int count, int copies, long *sent) {
    static struct mmsghdr incoming[BATCH], outgoing[SEND];
    static struct iovec incoming_at[BATCH], outgoing_at[SEND];
    struct sockaddr_in origins[BATCH];
    double began = cpu();
    int next = 0;
    *sent = 0;
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            incoming_at[i] = (struct iovec){in[i], SIZE};
            incoming[i].msg_hdr = (struct msghdr){
                .msg_iov = &incoming_at[i], .msg_iovlen = 1, .msg_name = &origins[i], .msg_namelen = sizeof origins[i]};
        }
        int got = recvmmsg(fd, incoming, BATCH, MSG_DONTWAIT, NULL), filled = 0;
        if (got <= 0)
            return cpu() - began;
        for (int i = 0; i < got; i++) {
            for (int copy = 0; copy < copies; copy++) {
                memcpy(out[filled], in[i], incoming[i].msg_len);
                outgoing_at[filled] = (struct iovec){out[filled], incoming[i].msg_len};
                outgoing[filled].msg_hdr = (struct msghdr){
                    .msg_iov = &outgoing_at[filled], .msg_iovlen = 1,
                    .msg_name = (void *)&receivers[next], .msg_namelen = sizeof *receivers};
                next = (next + 1) % count;
                if (++filled == SEND || (i == got - 1 && copy == copies - 1)) {
                    int done = 0;
                    while (done < filled) {
                        int n = sendmmsg(fd, outgoing + done, filled - done, 0);
                        done += n > 0 ? n : 1;
                        *sent += n > 0 ? n : 0;
                    }
                    filled = 0;
                }
            }
        }
    }
}
