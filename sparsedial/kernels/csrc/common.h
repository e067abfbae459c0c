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

static inline vec load(const float *p) { vec v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float *p, vec v) { memcpy(p, &v, sizeof v); }
static inline vec splat(float x) { return (vec){x, x, x, x, x, x, x, x}; }

static inline vec choose(ivec mask, vec yes, vec no) { return (vec)(((ivec)yes & mask) | ((ivec)no & ~mask)); }

/* e^x, relative error below 2e-7: 2^n times a polynomial of the rest. Source: Cephes expf. */
static inline vec vexp(vec x) {
    vec low = splat(-87.3f), high = splat(88.3f);
    x = choose(x < low, low, x); /* not a number stays so */
    x = choose(x > high, high, x);
    vec scaled = x * 1.44269504088896341f;
    vec half = (vec)(((ivec)scaled & (ivec)splat(-0.0f)) | (ivec)splat(0.5f)); /* a half with the sign of x */
    ivec whole = __builtin_convertvector(scaled + half, ivec);
    vec n = __builtin_convertvector(whole, vec);
    x = x - n * 0.693359375f - n * -2.12194440e-4f;
    vec y = splat(1.9875691500e-4f);
    y = y * x + 1.3981999507e-3f;
    y = y * x + 8.3334519073e-3f;
    y = y * x + 4.1665795894e-2f;
    y = y * x + 1.6666665459e-1f;
    y = y * x + 5.0000001201e-1f;
    y = y * x * x + x + 1.0f;
    ivec power = (whole + 127) << 23;
    return y * (vec)power;
}

static inline float exp_of(float x) { vec v = vexp(splat(x)); return v[0]; }

static inline float sum_of(vec v) { float s = 0; for (int i = 0; i < LANES; i++) s += v[i]; return s; }

static inline float dot(const float *x, const float *y, long n) {
    vec total = splat(0.0f);
    long i = 0;
    for (; i + LANES <= n; i += LANES) total += load(x + i) * load(y + i);
    float rest = sum_of(total);
    for (; i < n; i++) rest += x[i] * y[i];
    return rest;
}

/* y += s x */
static inline void axpy(float *restrict y, const float *restrict x, float s, long n) {
    for (long i = 0; i < n; i++) y[i] += s * x[i];
}

static inline float largest(const float *x, long n) {
    vec top = splat(-INFINITY);
    long i = 0;
    for (; i + LANES <= n; i += LANES) {
        vec v = load(x + i);
        top = choose(v > top, v, top);
    }
    float most = top[0];
    for (int lane = 1; lane < LANES; lane++) most = top[lane] > most ? top[lane] : most;
    for (; i < n; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* Which thread of a parallel region this is. */
static inline int thread(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}
