# The one lock that a relay has, and a load generator: POSIX's, because both sides hold it without the GIL.
#
# A saturated socket loop would take it again before whoever sleeps for it has woken. So the slow path says that it wants it,
# looks for it awake for a moment, and the socket loop lets it go first between two packets: it waits for a packet, not for
# a batch.

cdef extern from * nogil:
    """
    #include <pthread.h>
    #include <sched.h>
    #if defined(__x86_64__) || defined(__i386__)
    #define MUTEX_PAUSE() __builtin_ia32_pause()
    #elif defined(__aarch64__)
    #define MUTEX_PAUSE() __asm__ volatile("yield")
    #else
    #define MUTEX_PAUSE() (void)0
    #endif
    typedef struct { pthread_mutex_t mutex; int wanted; } Mutex;

    static inline void mutex_open(Mutex *mutex) { pthread_mutex_init(&mutex->mutex, 0); mutex->wanted = 0; }
    static inline void mutex_close(Mutex *mutex) { pthread_mutex_destroy(&mutex->mutex); }
    static inline void mutex_lock(Mutex *mutex) { pthread_mutex_lock(&mutex->mutex); }
    static inline void mutex_unlock(Mutex *mutex) { pthread_mutex_unlock(&mutex->mutex); }

    /* About as long as the packet that wakes most receivers takes. */
    enum { MUTEX_LOOKS = 2000 };

    static inline void mutex_lock_first(Mutex *mutex) {
        int looks = 0;
        __atomic_fetch_add(&mutex->wanted, 1, __ATOMIC_SEQ_CST);
        while (pthread_mutex_trylock(&mutex->mutex) != 0)
            if (++looks < MUTEX_LOOKS) MUTEX_PAUSE();
            else { pthread_mutex_lock(&mutex->mutex); break; }
        __atomic_fetch_sub(&mutex->wanted, 1, __ATOMIC_SEQ_CST);
    }

    static inline void mutex_give_way(Mutex *mutex) {
        int looks = 0;
        if (__atomic_load_n(&mutex->wanted, __ATOMIC_RELAXED) == 0) return;
        pthread_mutex_unlock(&mutex->mutex);
        while (__atomic_load_n(&mutex->wanted, __ATOMIC_RELAXED) && ++looks < MUTEX_LOOKS) MUTEX_PAUSE();
        if (looks == MUTEX_LOOKS) sched_yield(); /* who wants it may be waiting for this processor */
        pthread_mutex_lock(&mutex->mutex);
    }
    """
    ctypedef struct Mutex:
        pass
    void mutex_open(Mutex*)
    void mutex_close(Mutex*)
    void mutex_lock(Mutex*)             # the media's thread's
    void mutex_lock_first(Mutex*)       # the slow path's
    void mutex_give_way(Mutex*)         # of who holds it: to the slow path, if that wants it
    void mutex_unlock(Mutex*)
