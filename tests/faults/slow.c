/* A disk whose syncs take five seconds each, as long as the file named by SLOW_SYNC is there. Preloaded before libc. When
   one begins and when it is over is told by a letter each, b or e, added to that file. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void tell(const char *letter) {
    int file = open(getenv("SLOW_SYNC"), O_WRONLY | O_APPEND);
    if (file >= 0) {
        if (write(file, letter, 1) == 1) { /* else: nobody looks any more */
        }
        close(file);
    }
}

static void wait_for_it(void) {
    const char *there = getenv("SLOW_SYNC");
    if (!there || access(there, F_OK)) return;
    tell("b");
    sleep(5);
    tell("e");
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
int fsync(int d) { wait_for_it(); return REAL(fsync)(d); }
int fdatasync(int d) { wait_for_it(); return REAL(fdatasync)(d); }
