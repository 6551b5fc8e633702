/* The least that could be an SFU: recvmmsg, copy, sendmmsg. No parsing, no crypto, no GSO; a table of who receives whom.
   A process of its own, so that its CPU time is read as that of the other servers; bench_relay.py compiles and runs it.

   floor_relay IP PORT FIRST_IP PEER_PORT < table: who sends from FIRST_IP + n is carried to the numbers on line n, whose
   addresses are made likewise. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { BATCH = 64, SEND = 256, SIZE = 2048, LEGS = 65536, ROOM = 1 << 25 };

static char in[BATCH][SIZE], out[SEND][SIZE], line[1 << 20];
static int *receivers[LEGS], count[LEGS];
static struct mmsghdr incoming[BATCH], outgoing[SEND];
static struct iovec incoming_at[BATCH], outgoing_at[SEND];
static struct sockaddr_in origins[BATCH], targets[SEND];
static int fd, filled;

static void flush(void) {
    for (int done = 0; done < filled;) {
        int n = sendmmsg(fd, outgoing + done, filled - done, 0);
        done += n > 0 ? n : 1;
    }
    filled = 0;
}

int main(int argc, char **argv) {
    if (argc != 5)
        return 2;
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &own.sin_addr);
    struct in_addr first;
    inet_pton(AF_INET, argv[3], &first);
    unsigned base = ntohl(first.s_addr), port = htons(atoi(argv[4]));
    for (int leg = 0; leg < LEGS && fgets(line, sizeof line, stdin); leg++)
        for (char *word = strtok(line, " \n"); word; word = strtok(NULL, " \n")) {
            receivers[leg] = realloc(receivers[leg], (count[leg] + 1) * sizeof(int));
            receivers[leg][count[leg]++] = atoi(word);
        }
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    int room = ROOM;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    if (bind(fd, (struct sockaddr *)&own, sizeof own)) {
        perror("bind");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        poll(&ready, 1, -1);
        for (int i = 0; i < BATCH; i++) {
            incoming_at[i] = (struct iovec){in[i], SIZE};
            incoming[i].msg_hdr = (struct msghdr){
                .msg_iov = &incoming_at[i], .msg_iovlen = 1, .msg_name = &origins[i], .msg_namelen = sizeof origins[i]};
        }
        int got = recvmmsg(fd, incoming, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < got; i++) {
            unsigned leg = ntohl(origins[i].sin_addr.s_addr) - base;
            if (leg >= LEGS)
                continue;
            for (int j = 0; j < count[leg]; j++) {
                memcpy(out[filled], in[i], incoming[i].msg_len);
                outgoing_at[filled] = (struct iovec){out[filled], incoming[i].msg_len};
                targets[filled] = (struct sockaddr_in){
                    .sin_family = AF_INET, .sin_port = port, .sin_addr.s_addr = htonl(base + receivers[leg][j])};
                outgoing[filled].msg_hdr = (struct msghdr){
                    .msg_iov = &outgoing_at[filled], .msg_iovlen = 1,
                    .msg_name = &targets[filled], .msg_namelen = sizeof targets[filled]};
                if (++filled == SEND)
                    flush();
            }
        }
        flush();
    }
}
