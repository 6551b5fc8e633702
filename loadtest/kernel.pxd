# What the engine needs of the kernel besides what the socket loop does (fastpath/sockets.pxd): which of our addresses a
# datagram came to and leaves from, when the kernel had it, and waiting until a time.
#
# Spec: ip(7), socket(7), cmsg(3), clock_nanosleep(2).

from libc.stdint cimport uint32_t

from server.media.fastpath.sockets cimport cmsghdr, in_addr, msghdr, timespec

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <netinet/in.h>
    #include <sys/socket.h>
    #include <time.h>
    """
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    int IPPROTO_IP, IP_PKTINFO, SOL_SOCKET, SO_TIMESTAMPNS, CLOCK_REALTIME
    uint32_t htonl(uint32_t)
    uint32_t ntohl(uint32_t)
    cmsghdr* CMSG_FIRSTHDR(msghdr*)
    cmsghdr* CMSG_NXTHDR(msghdr*, cmsghdr*)
