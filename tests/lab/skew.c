/* Preloaded into a client that runs as a process: its clock is off by SKEW_SECONDS. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now)
{
    const char *skew = getenv("SKEW_SECONDS");
    long status = syscall(SYS_clock_gettime, clock, now);
    if (status == 0 && clock == CLOCK_REALTIME && skew != NULL)
        now->tv_sec += atol(skew);
    return (int)status;
}

/* GlusterFS stamps files by this one. */
int timespec_get(struct timespec *now, int base)
{
    return base == TIME_UTC && clock_gettime(CLOCK_REALTIME, now) == 0 ? base : 0;
}
