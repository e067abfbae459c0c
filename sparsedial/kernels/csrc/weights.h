/* Weights in float32 or, where `half`, in bfloat16: the upper 16 bits of a float32 whose other bits are 0. Products are
 * summed in float32 and in one order, so the same weights give the same values, however they are held. */
#pragma once
#include "products.h"

typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));
typedef uint32_t bits_vec __attribute__((vector_size(4 * LANES)));

static INLINE vec widened(half_vec v) { return (vec)(__builtin_convertvector(v, bits_vec) << 16); }

static INLINE long weight_bytes(const int half) { return half ? sizeof(uint16_t) : sizeof(float); }

/* Where the i-th weight lies. */
static INLINE const void *weight_at(const void *w, long i, const int half) {
    return (const char *)w + i * weight_bytes(half);
}

/* The weights from the i-th on that a vector holds; then zeros, where these are fewer. */
static INLINE vec weights(const void *w, long i, const long lanes, const int half) {
    if (!half) return part((const float *)w + i, lanes);
    half_vec v = {0};
    memcpy(&v, (const uint16_t *)w + i, lanes == LANES ? sizeof v : sizeof(uint16_t) * lanes);
    return widened(v);
}

#define LINE_BYTES 64 /* of the cache */

/* Prefetch what will be read soon; beyond an array's end this does no harm. */
static inline void fetch(const void *from, long bytes) {
    for (long i = 0; i < bytes; i += LINE_BYTES) __builtin_prefetch((const char *)from + i, 0, 2);
}

/* Copies n weights, from the first-th on. */
static inline void copy_weights(float *to, const void *w, long first, long n, int half) {
    long i = 0;
    for (; half && i + LANES <= n; i += LANES) store(to + i, weights(w, first + i, LANES, 1));
    if (half && i < n) store_some(to + i, weights(w, first + i, n - i, 1), n - i);
    if (!half) memcpy(to, (const float *)w + first, sizeof(float) * n);
}

/* n weights from the first-th on: where they lie, or in `wide`. */
static inline const float *as_floats(const void *w, long first, long n, float *wide, int half) {
    if (!half) return (const float *)w + first;
    copy_weights(wide, w, first, n, half);
    return wide;
}

/* Sixteen columns in bfloat16. */
static INLINE columns_t widened_columns(const void *w, long i) {
#ifdef __AVX512F__
    typedef uint16_t half_columns __attribute__((vector_size(2 * TILE_N)));
    typedef uint32_t bits_columns __attribute__((vector_size(4 * TILE_N)));
    half_columns v;
    memcpy(&v, (const uint16_t *)w + i, sizeof v);
    return (columns_t)(__builtin_convertvector(v, bits_columns) << 16);
#else
    return (columns_t){weights(w, i, LANES, 1), weights(w, i + LANES, LANES, 1)};
#endif
}

/* As pack, of rows of n weights in bfloat16. */
static inline void pack_half(const void *w, long n, long k, long columns, float *panel) {
    if (columns == TILE_N) {
        for (long row = 0; row < k; row++) store_columns(panel + row * TILE_N, widened_columns(w, row * n));
        return;
    }
    memset(panel, 0, sizeof(float) * k * TILE_N);
    for (long row = 0; row < k; row++) copy_weights(panel + row * TILE_N, w, row * n, columns, 1);
}

/* Packs a matrix [K, N], or columns of a matrix with rows of that length. */
static inline void pack_weights(const void *w, int half, long k, long n, long row, float *panels) {
    if (!half) {
        pack_all(w, row, 1, k, n, k, panels);
        return;
    }
    for (long n0 = 0; n0 < n; n0 += TILE_N)
        pack_half(weight_at(w, n0, 1), row, k, at_most(TILE_N, n - n0), panels + n0 * k);
}

/* The same, to be called inside a parallel region: by all threads together. */
static inline void shared_weights(const void *w, int half, long k, long n, float *panels) {
    if (!half) {
        shared_pack(w, n, 1, k, n, panels);
        return;
    }
#pragma omp for schedule(static)
    for (long n0 = 0; n0 < n; n0 += TILE_N)
        pack_half(weight_at(w, n0, 1), n, k, at_most(TILE_N, n - n0), panels + n0 * k);
}

#define TURNS_ROWS 600 /* up to which packing all weights at once takes longer than it spares; measured, LOG.md */

/* To be called inside a parallel region, for few rows: C[M, N] = or += A[M, K] times weights [K, N], each panel packed by
 * the thread that uses it when its turn comes. So weights are read once, and not written. Before each tile some rows of
 * the next panel are fetched: all of them at once would wait for one another. Sums are in the order of by_panels. */
static inline void product_by_turns(const float *a, const void *w, int half, float *c, long m, long n, long k, int add) {
    float panels[DEEP * WIDE] __attribute__((aligned(64)));
    long each = deep_of(k), tiles_high = (m + TILE_M - 1) / TILE_M;
    for (long k0 = 0; k0 < k; k0 += each) {
        long deep = at_most(each, k - k0), fetched = (deep + tiles_high - 1) / tiles_high;
#pragma omp for schedule(static) nowait
        for (long n0 = 0; n0 < n; n0 += WIDE) {
            long columns = at_most(WIDE, n - n0);
            const void *from = weight_at(w, k0 * n + n0, half);
            pack_weights(from, half, deep, columns, n, panels);
            const void *next = weight_at(from, WIDE, half);
            for (long m0 = 0, row = 0; m0 < m; m0 += TILE_M) {
                for (long end = at_most(deep, row + fetched); row < end; row++)
                    __builtin_prefetch(weight_at(next, row * n, half), 0, 2);
                by_panel(a + m0 * k + k0, k, 1, panels, TILE_N, deep * TILE_N, c + m0 * n + n0, n,
                         at_most(TILE_M, m - m0), columns, deep, add || k0 > 0);
            }
        }
    }
#pragma omp barrier
}
