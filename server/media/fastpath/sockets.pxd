# The kernel's names, as socketloop.pyx and streams.pyx call them, and addresses to and fro.
#
# Spec: udp(7), tcp(7), epoll(7), recvmmsg(2), accept(2).

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from server.media.fastpath.slots cimport Endpoint

cdef extern from * nogil:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <netinet/udp.h>
    #include <poll.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <unistd.h>
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
    struct in6_addr:
        uint8_t s6_addr[16]
    struct sockaddr:
        uint16_t sa_family
    struct sockaddr_in:
        uint16_t sin_family
        uint16_t sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        uint16_t sin6_family
        uint16_t sin6_port
        in6_addr sin6_addr
    struct pollfd:
        int fd
        short events
        short revents
    struct timespec:
        long tv_sec
        long tv_nsec
    union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int AF_INET, AF_INET6, MSG_DONTWAIT, MSG_NOSIGNAL, POLLOUT, CLOCK_MONOTONIC, TIMER_ABSTIME, SOL_UDP, UDP_SEGMENT
    int SOCK_NONBLOCK, SOCK_CLOEXEC, IPPROTO_TCP, TCP_NODELAY, TCP_NOTSENT_LOWAT
    int EPOLLIN, EPOLLOUT, EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD
    uint16_t htons(uint16_t)
    uint16_t ntohs(uint16_t)
    size_t CMSG_LEN(size_t)
    size_t CMSG_SPACE(size_t)
    unsigned char* CMSG_DATA(cmsghdr*)
    int poll(pollfd*, unsigned long, int)
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
    int recvmmsg(int, mmsghdr*, unsigned int, int, timespec*)
    int sendmmsg(int, mmsghdr*, unsigned int, int)
    Py_ssize_t sendmsg(int, const msghdr*, int)
    Py_ssize_t recv(int, void*, size_t, int)
    int accept4(int, sockaddr*, uint32_t*, int)
    int getsockopt(int, int, int, void*, uint32_t*)
    int setsockopt(int, int, int, const void*, uint32_t)
    int clock_gettime(int, timespec*)
    int clock_nanosleep(int, int, const timespec*, timespec*)
    Py_ssize_t read(int, void*, size_t)
    Py_ssize_t write(int, const void*, size_t)
    int close(int)


cdef union SocketAddress:
    sockaddr plain
    sockaddr_in v4
    sockaddr_in6 v6


cdef inline double monotonic() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC, &at)
    return at.tv_sec + at.tv_nsec * 1e-9


cdef inline void sleep_until(double at) noexcept nogil:
    """Sleep to a time of `monotonic`, unless it is past."""
    cdef timespec until
    until.tv_sec = <long>at
    until.tv_nsec = <long>((at - <long>at) * 1e9)
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)


cdef inline void read_address(const SocketAddress* address, uint8_t protocol, Endpoint* endpoint) noexcept nogil:
    memset(endpoint, 0, sizeof(Endpoint))
    endpoint.protocol = protocol
    if address.plain.sa_family == AF_INET:
        endpoint.family = 4
        memcpy(endpoint.ip, &address.v4.sin_addr, 4)
        endpoint.port = ntohs(address.v4.sin_port)
    else:
        endpoint.family = 6
        memcpy(endpoint.ip, &address.v6.sin6_addr, 16)
        endpoint.port = ntohs(address.v6.sin6_port)


cdef inline uint32_t write_address(const Endpoint* endpoint, SocketAddress* address) noexcept nogil:
    """Write it, and return its size."""
    memset(address, 0, sizeof(SocketAddress))
    if endpoint.family == 4:
        address.v4.sin_family = AF_INET
        address.v4.sin_port = htons(endpoint.port)
        memcpy(&address.v4.sin_addr, endpoint.ip, 4)
        return sizeof(sockaddr_in)
    address.v6.sin6_family = AF_INET6
    address.v6.sin6_port = htons(endpoint.port)
    memcpy(&address.v6.sin6_addr, endpoint.ip, 16)
    return sizeof(sockaddr_in6)


cdef inline bint watch(int epoll, int operation, int descriptor, uint32_t events, uint64_t token) noexcept nogil:
    """Add a descriptor to an epoll, change what is waited for, or remove it. False: errno says why."""
    cdef epoll_event event
    event.events = events
    event.data.u64 = token
    return epoll_ctl(epoll, operation, descriptor, &event) == 0
