/* Preloaded under a store: makes its disk calls fail as the file named by OFFGRID_FAULT says.
 *   sync       fsync and fdatasync fail with EIO
 *   write      every pwrite and pwritev fails with ENOSPC
 *   meta       writes through a synchronous descriptor (LMDB's meta page) fail with EIO, nothing written
 *   meta-late  they are carried out, then fail with EIO; writing the old page back fails too
 *   meta-sync  as meta-late, and from then on fsync and fdatasync fail as well
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int asked(const char *what) {
    const char *path = getenv("OFFGRID_FAULT");
    char text[32];
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return strcmp(text, what) == 0;
}

static int fails(int error) {
    errno = error;
    return -1;
}

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int struck; /* a meta page was written late */

static int sync_fails(void) { return asked("sync") || (struck && asked("meta-sync")); }

int fsync(int fd) { REAL(fsync); return sync_fails() ? fails(EIO) : real(fd); }
int fdatasync(int fd) { REAL(fdatasync); return sync_fails() ? fails(EIO) : real(fd); }

static int synchronous(int fd) { return (fcntl(fd, F_GETFL) & O_DSYNC) != 0; }

#define WRITE(name, buffer_type, size_type, offset_type)                                   \
    ssize_t name(int fd, buffer_type buffer, size_type size, offset_type offset) {         \
        REAL(name);                                                                        \
        if (asked("write")) return fails(ENOSPC);                                          \
        if (asked("meta") && synchronous(fd)) return fails(EIO);                           \
        if (asked("meta-late") || asked("meta-sync")) {                                    \
            static int late;                                                               \
            if (synchronous(fd)) { struck = late = 1; real(fd, buffer, size, offset); return fails(EIO); } \
            if (late) { late = 0; return fails(EIO); }                                     \
        }                                                                                  \
        return real(fd, buffer, size, offset);                                             \
    }

WRITE(pwrite, const void *, size_t, off_t)
WRITE(pwrite64, const void *, size_t, off64_t)
WRITE(pwritev, const struct iovec *, int, off_t)
WRITE(pwritev64, const struct iovec *, int, off64_t)
