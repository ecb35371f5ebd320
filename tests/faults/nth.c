/* A disk that fails at the n-th touch: write, truncate, sync or rename below one folder. Preloaded before libc, armed
   from within the process (tests/faults/nth.py). Mode 1: that one fails with EIO. Mode 2: that one and all after it,
   which is what a process that is killed there leaves behind; from then on nothing is unlinked either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static char below[PATH_MAX];
static atomic_long touched, failing;
static atomic_int mode;

void nth_arm(const char *folder, long n, int how) {
    mode = 0;
    strncpy(below, folder, sizeof below - 1);
    touched = 0;
    failing = n;
    mode = how;
}

long nth_touched(void) { return touched; }

static int fails(const char *path) {
    if (!mode || strncmp(path, below, strlen(below))) return 0;
    long now = ++touched;
    if (now == failing || (mode == 2 && now > failing)) {
        errno = EIO;
        return 1;
    }
    return 0;
}

static int fails_at(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!mode) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return fails(path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
ssize_t write(int d, const void *b, size_t n) { return fails_at(d) ? -1 : REAL(write)(d, b, n); }
ssize_t pwrite(int d, const void *b, size_t n, off_t o) { return fails_at(d) ? -1 : REAL(pwrite)(d, b, n, o); }
ssize_t pwrite64(int d, const void *b, size_t n, off64_t o) { return fails_at(d) ? -1 : REAL(pwrite64)(d, b, n, o); }
int ftruncate(int d, off_t n) { return fails_at(d) ? -1 : REAL(ftruncate)(d, n); }
int ftruncate64(int d, off64_t n) { return fails_at(d) ? -1 : REAL(ftruncate64)(d, n); }
int fsync(int d) { return fails_at(d) ? -1 : REAL(fsync)(d); }
int fdatasync(int d) { return fails_at(d) ? -1 : REAL(fdatasync)(d); }
int rename(const char *a, const char *b) { return fails(b) ? -1 : REAL(rename)(a, b); }

int unlink(const char *path) { /* no touch of its own: what is not removed is removed by the next start */
    if (mode == 2 && touched >= failing && !strncmp(path, below, strlen(below))) {
        errno = EIO;
        return -1;
    }
    return REAL(unlink)(path);
}
