/* Preloaded into a coordinator, this makes its wall clock wrong by as many milliseconds as stand, as eight bytes in the
 * machine's order, in the file that NOVACRON_TEST_SKEW names: also while it runs, as a clock that is set. Monotonic
 * clocks are left alone. A time namespace would be simpler, but it does not shift CLOCK_REALTIME (time_namespaces(7)). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int skew_file = -1;

__attribute__((constructor)) static void open_skew(void) {
    const char *path = getenv("NOVACRON_TEST_SKEW");
    if (path)
        skew_file = open(path, O_RDONLY | O_CLOEXEC);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int64_t skew_ms;
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (failed || clock != CLOCK_REALTIME || skew_file < 0 ||
        pread(skew_file, &skew_ms, sizeof skew_ms, 0) != sizeof skew_ms)
        return failed;
    int64_t ns = now->tv_sec * INT64_C(1000000000) + now->tv_nsec + skew_ms * 1000000;
    now->tv_sec = ns / 1000000000;
    now->tv_nsec = ns % 1000000000;
    return 0;
}
