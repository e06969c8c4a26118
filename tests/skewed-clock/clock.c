// A wall clock that is off by SKEW_SECONDS, for a program that is started with this in LD_PRELOAD. Other clocks are right.

#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    long failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        const char *skew = getenv("SKEW_SECONDS");
        if (skew) {
            now->tv_sec += atol(skew);
        }
    }
    return (int)failed;
}
