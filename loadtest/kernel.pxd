# What the engine needs of the kernel's interface: batches of datagrams, their control messages, time, one mutex.
#
# Spec: recvmmsg(2), sendmmsg(2), ip(7), udp(7).

from libc.stddef cimport size_t
from libc.stdint cimport uint16_t, uint32_t

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <netinet/in.h>
    #include <netinet/udp.h>
    #include <pthread.h>
    #include <sys/socket.h>
    #include <time.h>
    #ifndef UDP_SEGMENT
    #define UDP_SEGMENT 103
    #endif
    """
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        void* msg_name
        uint32_t msg_namelen
        iovec* msg_iov
        size_t msg_iovlen
        void* msg_control
        size_t msg_controllen
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct in_addr:
        uint32_t s_addr
    struct in_pktinfo:
        int ipi_ifindex
        in_addr ipi_spec_dst
        in_addr ipi_addr
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct timespec:
        long tv_sec
        long tv_nsec
    ctypedef struct pthread_mutex_t:
        pass
    int AF_INET, MSG_DONTWAIT, IPPROTO_IP, IP_PKTINFO, SOL_SOCKET, SO_TIMESTAMPNS, SOL_UDP, UDP_SEGMENT
    int CLOCK_REALTIME, CLOCK_MONOTONIC, TIMER_ABSTIME
    uint16_t htons(uint16_t)
    uint32_t htonl(uint32_t)
    uint32_t ntohl(uint32_t)
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)
    unsigned char* CMSG_DATA(cmsghdr*)
    cmsghdr* CMSG_FIRSTHDR(msghdr*)
    cmsghdr* CMSG_NXTHDR(msghdr*, cmsghdr*)
    int recvmmsg(int, mmsghdr*, unsigned int, int, timespec*)
    int sendmmsg(int, mmsghdr*, unsigned int, int)
    int clock_gettime(int, timespec*)
    int clock_nanosleep(int, int, timespec*, timespec*)
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
