/* Preloaded under a node: its disk takes no more bytes a second than the file named by SLOW_DISK_RATE says, as long as
 * it says so. What was written to files waits, whole pages of it, for the next fsync or fdatasync, which takes as long as
 * the disk would; a synchronous write waits at once. One at a time: a disk has one head.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096L
#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static pthread_mutex_t head = PTHREAD_MUTEX_INITIALIZER;
static atomic_long dirty; /* bytes that no fsync has waited for */

static long rate(void) {
    const char *path = getenv("SLOW_DISK_RATE");
    char text[32] = {0};
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 ? atol(text) : 0;
}

static void flush(void) {
    pthread_mutex_lock(&head);
    long bytes = atomic_exchange(&dirty, 0), per_second = rate();
    if (per_second > 0 && bytes > 0) {
        struct timespec left = {bytes / per_second, bytes % per_second * 1000000000L / per_second};
        while (nanosleep(&left, &left)) { }
    }
    pthread_mutex_unlock(&head);
}

static ssize_t wrote(int fd, ssize_t n) {
    struct stat of;
    if (n > 0 && !fstat(fd, &of) && S_ISREG(of.st_mode)) {
        atomic_fetch_add(&dirty, (n + PAGE - 1) / PAGE * PAGE);
        if (fcntl(fd, F_GETFL) & O_DSYNC) flush();
    }
    return n;
}

int fsync(int fd) { REAL(fsync); flush(); return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); flush(); return real(fd); }

ssize_t write(int fd, const void *data, size_t size) { REAL(write); return wrote(fd, real(fd, data, size)); }
ssize_t writev(int fd, const struct iovec *data, int n) { REAL(writev); return wrote(fd, real(fd, data, n)); }

#define WRITE(name, data_type, size_type, offset_type)                                      \
    ssize_t name(int fd, data_type data, size_type size, offset_type offset) {              \
        REAL(name);                                                                         \
        return wrote(fd, real(fd, data, size, offset));                                     \
    }

WRITE(pwrite, const void *, size_t, off_t)
WRITE(pwrite64, const void *, size_t, off64_t)
WRITE(pwritev, const struct iovec *, int, off_t)
WRITE(pwritev64, const struct iovec *, int, off64_t)
