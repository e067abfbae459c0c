/* Vectors of eight floats, in GCC's extension that Clang knows too, and what every kernel does with rows of them. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define LANES 8
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));

#ifdef __clang__
#define SHUFFLE(v, ...) __builtin_shufflevector(v, v, __VA_ARGS__)
#else
#define SHUFFLE(v, ...) __builtin_shuffle(v, (ivec){__VA_ARGS__})
#endif
#define HALVES(v) SHUFFLE(v, 4, 5, 6, 7, 0, 1, 2, 3)
#define PAIRS(v) SHUFFLE(v, 2, 3, 0, 1, 6, 7, 4, 5)
#define NEIGHBOURS(v) SHUFFLE(v, 1, 0, 3, 2, 5, 4, 7, 6)

/* Hides where a value comes from: a compiler might load it again for every use, or cancel an addition. */
#ifdef __AVX512F__
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(__AVX2__)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif

static const ivec lane = {0, 1, 2, 3, 4, 5, 6, 7};

static inline vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
static inline vec splat(float x) { return (vec){x, x, x, x, x, x, x, x}; }
static inline vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }
static inline ivec ichoose(ivec mask, ivec yes, ivec no) { return (yes & mask) | (no & ~mask); }
static inline vec size_of(vec v) { return (vec)((ivec)v & 0x7fffffff); }
static inline ivec first(long count) { return lane < (int32_t)count; }

/* The first `count` < LANES floats, then `rest`. */
static inline vec load_some(const float *p, long count, float rest) {
    vec v = splat(rest);
    memcpy(&v, p, sizeof(float) * count);
    return v;
}

static inline void store_some(float *p, vec v, long count) { memcpy(p, &v, sizeof(float) * count); }

/* The floats of a vector that lie in a row; called with a constant where all do. */
#define INLINE inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
static INLINE vec part(const float *p, const long lanes) { return lanes == LANES ? load(p) : load_some(p, lanes, 0); }
static INLINE void store_part(float *p, vec v, const long lanes) {
    if (lanes == LANES) store(p, v);
    else store_some(p, v, lanes);
}

static inline float sum_of(vec v) {
    v += HALVES(v);
    v += PAIRS(v);
    v += NEIGHBOURS(v);
    return v[0];
}

/* Values whose size times their weight reaches a threshold; 0 for others, and for NaN. */
static inline vec reaching(vec v, vec weights, float least) {
    return choose(size_of(v) * weights >= splat(least), v, splat(0.0f));
}

static inline vec greater(vec a, vec b) { return choose(a > b, a, b); }

static inline float largest_of(vec v) {
    v = greater(v, HALVES(v));
    v = greater(v, PAIRS(v));
    v = greater(v, NEIGHBOURS(v));
    return v[0];
}

/* The nearest whole number, as float and as integer; |x| below 2^22. */
static inline ivec nearest(vec x, vec *n) {
#ifdef __AVX2__
    vec shifted = x + 12582912.0f; /* 1.5 * 2^23: the last bit counts ones */
    IN_REGISTER(shifted);
    *n = shifted - 12582912.0f;
    return (ivec)shifted - 0x4b400000;
#else
    vec half = (vec)(((ivec)x & (ivec)splat(-0.0f)) | (ivec)splat(0.5f)); /* a half with the sign of x */
    ivec whole = __builtin_convertvector(x + half, ivec);
    *n = __builtin_convertvector(whole, vec);
    return whole;
#endif
}

/* e^x, relative error below 2e-7: 2^n times a polynomial of the rest. Source: Cephes expf. */
static inline vec vexp(vec x) {
    vec low = splat(-87.3f), high = splat(88.3f), n;
    x = choose(x < low, low, x); /* NaN stays NaN */
    x = choose(x > high, high, x);
    ivec power = nearest(x * 1.44269504088896341f, &n);
    x = x - n * 0.693359375f - n * -2.12194440e-4f;
    vec y = splat(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    return y * (vec)((power + 127) << 23);
}

static inline float dot(const float *x, const float *y, long n) {
    vec total = splat(0.0f);
    long i = 0;
    for (; i + LANES <= n; i += LANES) total += load(x + i) * load(y + i);
    if (i < n) total += load_some(x + i, n - i, 0) * load_some(y + i, n - i, 0);
    return sum_of(total);
}

/* y += s x */
static inline void axpy(float *restrict y, const float *restrict x, float s, long n) {
    for (long i = 0; i < n; i++) y[i] += s * x[i];
}

static inline float largest(const float *x, long n) {
    vec top = splat(-INFINITY);
    long i = 0;
    for (; i + LANES <= n; i += LANES) top = greater(load(x + i), top);
    if (i < n) top = greater(load_some(x + i, n - i, -INFINITY), top);
    return largest_of(top);
}

/* exp(scale * x - shift) of the first `count` values in place, then zeros up to whole vectors, for which there must be
 * room; returns their sum. */
static inline float exponentials(float *x, long count, float scale, float shift) {
    vec total = splat(0.0f);
    long i = 0;
    for (; i + LANES <= count; i += LANES) {
        vec v = vexp(load(x + i) * scale - shift);
        store(x + i, v);
        total += v;
    }
    if (i < count) {
        vec v = choose(first(count - i), vexp(load(x + i) * scale - shift), splat(0.0f));
        store(x + i, v);
        total += v;
    }
    return sum_of(total);
}

static inline long at_most(long most, long value) { return value < most ? value : most; }
static inline long whole(long size, long unit) { return (size + unit - 1) / unit * unit; }

/* Memory that begins on a cache line and has room for a last whole vector. */
static inline float *floats(long count) { return aligned_alloc(64, sizeof(float) * whole(count + LANES, 16)); }

/* With the address sanitizer, a gap that must not be accessed follows each part of a piece of memory. */
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#define GAP 16
#define ALLOW(from, count) ASAN_UNPOISON_MEMORY_REGION(from, sizeof(float) * (count))
#define FORBID(from, count) ASAN_POISON_MEMORY_REGION(from, sizeof(float) * (count))
#else
#define GAP 0
#define ALLOW(from, count)
#define FORBID(from, count)
#endif

/* The next `count` floats of a piece of memory, beginning on a cache line; only counts where `base` is NULL. */
static inline float *take(float **base, long *used, long count) {
    float *here = *base ? *base + *used : NULL;
    long room = whole(count, 16);
    *used += room + GAP;
    if (here) {
        ALLOW(here, room); /* an earlier division of the memory may have had a gap here */
        FORBID(here + room, GAP);
    }
    return here;
}

/* Which thread of a parallel region this is. */
static inline int thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* Scratch of every thread in one piece, which is had before the threads begin: whether there is memory is one answer for
 * all of them. `own_part` is a thread's part of it. */
static inline long part_of_each(long count) { return whole(count + LANES, 16) + GAP; }
static inline float *for_each_thread(int threads, long count) { return floats(threads * part_of_each(count)); }
static inline float *own_part(float *of_all, long count) {
    float *here = of_all + thread() * part_of_each(count);
    FORBID(here + part_of_each(count) - GAP, GAP);
    return here;
}

/* Whether all of this memory could be had. */
#define ALL_THERE(...) all_there((float *const[]){__VA_ARGS__}, sizeof((float *const[]){__VA_ARGS__}) / sizeof(float *))
static inline int all_there(float *const *memory, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!memory[i]) return 0;
    return 1;
}
#define NO_MEMORY (-2) /* as bridge.py has it */
#define DONE_IF(there) ((there) ? 0 : NO_MEMORY)

/* Adds up the `n` values that each thread summed; a thread's values begin at its number times `stride`. */
static inline void gather_columns(float *restrict out, const float *restrict parts, int threads, long stride, long n) {
    memset(out, 0, sizeof(float) * n);
    for (int t = 0; t < threads; t++) axpy(out, parts + t * stride, 1.0f, n);
}
