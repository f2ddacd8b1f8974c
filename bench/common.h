/* What the C programs of the benchmark share: time, chance, latencies, files. */

#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

static const char *program = "bench", *stage = "start";

/* Say what is wrong and leave with 2: it could not run. Set errno to 0 first where it says nothing. */
_Noreturn static inline void die(const char *what) {
    fprintf(stderr, "%s: %s while: %s (%s)\n", program, what, stage, errno ? strerror(errno) : "no errno");
    exit(2);
}

_Noreturn static inline void die_of(const char *what) {
    errno = 0;
    die(what);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void sleep_until(uint64_t at) {
    struct timespec t = {(time_t)(at / 1000000000u), (long)(at % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* xorshift64*: which key is asked next need not be unpredictable, only cheap and spread out. */
static inline uint64_t next_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1Du;
}

static inline double cpu_seconds(void) {
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec + (double)used.ru_stime.tv_sec
        + 1e-6 * (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
}

/* A whole file, with a NUL behind it. */
static inline uint8_t *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        die(path);
    long size;
    if (fseek(file, 0, SEEK_END) != 0 || (size = ftell(file)) < 0)
        die(path);
    rewind(file);
    uint8_t *data = malloc((size_t)size + 1);
    if (data == NULL || fread(data, 1, (size_t)size, file) != (size_t)size)
        die(path);
    fclose(file);
    data[size] = 0;
    *length = (size_t)size;
    return data;
}

/* --- latencies: one counter for each tenth of a microsecond ------------------------------------------- */

enum { STEP_NS = 100, STEPS = 100000000 /* 10 s; only what is touched becomes memory */ };

struct latencies {
    uint32_t *counters;
    uint64_t count;
    size_t longest;
};

static inline void open_latencies(struct latencies *all) {
    memset(all, 0, sizeof *all);
    all->counters = calloc(STEPS, sizeof *all->counters);
    if (all->counters == NULL)
        die("no memory");
}

static inline void add_latency(struct latencies *all, uint64_t ns) {
    size_t step = ns / STEP_NS;
    if (step >= STEPS)
        step = STEPS - 1;
    if (step > all->longest)
        all->longest = step;
    all->counters[step]++;
    all->count++;
}

/* In microseconds; 0 where there is none. */
static inline double percentile(const struct latencies *all, double part) {
    uint64_t wanted = (uint64_t)((double)all->count * part), seen = 0;
    for (size_t step = 0; step <= all->longest && all->count > 0; step++) {
        seen += all->counters[step];
        if (seen > wanted || seen == all->count)
            return (double)step * STEP_NS / 1000.0;
    }
    return 0;
}

static inline void print_latencies(const struct latencies *all) {
    printf("\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f",
           percentile(all, 0.5), percentile(all, 0.9), percentile(all, 0.99), percentile(all, 0.999),
           all->count ? (double)all->longest * STEP_NS / 1000.0 : 0.0);
}

#endif
