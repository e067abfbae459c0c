/* Matrix products: C[M, N] = or += A[M, K] B[K, N], A with any strides, B and C with rows of given length. */
#pragma once
#include "common.h"

#define TILE_N 16 /* columns of a panel */

/* Sixteen columns are one register where the processor has such, else two. A tile is as large as 32 or 16 registers
 * allow: the more sums it holds, the fewer values are loaded for each, and the less a sum waits for the one before. */
#ifdef __AVX512F__
#define TILE_M 12 /* rows of a tile, and its columns: those of one panel or of two */
#define WIDE (2 * TILE_N)
typedef float columns_t __attribute__((vector_size(4 * TILE_N)));
static inline columns_t no_columns(void) { return (columns_t){0}; }
static inline columns_t load_columns(const float *p) { columns_t v; memcpy(&v, p, sizeof v); return v; }
static inline columns_t load_once(const float *p) { columns_t v = load_columns(p); IN_REGISTER(v); return v; }
static inline columns_t plus_times(columns_t sum, float s, columns_t b) { return sum + s * b; }
static inline columns_t plus(columns_t a, columns_t b) { return a + b; }
static inline void store_columns(float *p, columns_t v) { memcpy(p, &v, sizeof v); }
#else
#define TILE_M 6
#define WIDE TILE_N
typedef struct { vec left, right; } columns_t;
static inline columns_t no_columns(void) { return (columns_t){splat(0.0f), splat(0.0f)}; }
static inline columns_t load_columns(const float *p) { return (columns_t){load(p), load(p + LANES)}; }
static inline columns_t load_once(const float *p) {
    vec left = load(p), right = load(p + LANES);
    IN_REGISTER(left);
    IN_REGISTER(right);
    return (columns_t){left, right};
}
static inline columns_t plus_times(columns_t sum, float s, columns_t b) {
    vec times = splat(s);
    return (columns_t){sum.left + times * b.left, sum.right + times * b.right};
}
static inline columns_t plus(columns_t a, columns_t b) { return (columns_t){a.left + b.left, a.right + b.right}; }
static inline void store_columns(float *p, columns_t v) { store(p, v.left); store(p + LANES, v.right); }
#endif

/* C[rows, columns] = or += A[rows, k_count] B by the number of rows. A has any strides, or is packed with TILE_M rows
 * of each k together. B has rows of `brs` and at most TILE_N columns, or WIDE in two panels `gap` apart. */
typedef void (*tile_t)(const float *a, long ars, long acs, const float *b, long brs, long gap, float *c, long crs,
                       long k_count, long columns, int add);
typedef void (*packed_tile_t)(const float *a, const float *b, long gap, float *c, long crs, long k_count, long columns,
                              int add);
extern const tile_t tiles[TILE_M + 1], wide_tiles[TILE_M + 1];
extern const packed_tile_t packed_tiles[TILE_M + 1], packed_wide_tiles[TILE_M + 1];

/* Packs one panel of 16 columns. B[k, n] lies at b[k * brs + n * bcs], so a transposed B is only packed differently. */
static inline void pack(const float *b, long brs, long bcs, long k, long columns, float *panel) {
    for (long row = 0; row < k; row++) {
        const float *from = b + row * brs;
        float *to = panel + row * TILE_N;
        if (bcs == 1 && columns == TILE_N) {
            memcpy(to, from, sizeof(float) * TILE_N);
        } else {
            if (bcs == 1) for (long j = 0; j < columns; j++) to[j] = from[j];
            else for (long j = 0; j < columns; j++) to[j] = from[j * bcs];
            for (long j = columns; j < TILE_N; j++) to[j] = 0.0f;
        }
    }
}

/* The product with one or two panels of B, which are packed or lie in its rows: at most WIDE columns of C. */
static inline void by_panel(const float *a, long ars, long acs, const float *b, long brs, long gap, float *c, long crs,
                            long m, long columns, long k, int add) {
    const tile_t *by_rows = columns > TILE_N ? wide_tiles : tiles;
    for (long m0 = 0; m0 < m; m0 += TILE_M)
        by_rows[at_most(TILE_M, m - m0)](a + m0 * ars, ars, acs, b, brs, gap, c + m0 * crs, crs, k, columns, add);
}

/* The same, where A is packed. */
static inline void by_packed(const float *a, const float *panel, long gap, float *c, long crs, long m, long columns,
                             long k, int add) {
    const packed_tile_t *by_rows = columns > TILE_N ? packed_wide_tiles : packed_tiles;
    for (long m0 = 0; m0 < m; m0 += TILE_M)
        by_rows[at_most(TILE_M, m - m0)](a + m0 * k, panel, gap, c + m0 * crs, crs, k, columns, add);
}

/* Packs all of B into panels of `deep` >= k rows each. */
static inline void pack_all(const float *b, long brs, long bcs, long k, long n, long deep, float *panels) {
    for (long n0 = 0; n0 < n; n0 += TILE_N)
        pack(b + n0 * bcs, brs, bcs, k, at_most(TILE_N, n - n0), panels + n0 * deep);
}

static inline float *panels_for(long k, long n) { return floats(k * whole(n, TILE_N)); }

#define DEEP 320 /* rows of a panel that stay in the fastest cache; a longer product is a sum of shorter, equal ones */
#define DEEP_BOTH 256 /* the same, where columns of A, of which a tile uses a part of each line, stay there beside it */
#define ROWS 252 /* of A by DEEP columns stay in the second cache; whole tiles, and at most DEEP_BOTH */

/* How many of K values are summed at a time: equal parts of at most DEEP; the last one may be shorter. */
static inline long deep_of(long k) {
    long parts = (k + DEEP - 1) / DEEP;
    return parts > 1 ? (k + parts - 1) / parts : k;
}

/* The product with packed panels of `deep` rows, of which the first k are used. */
static inline void by_panels(const float *a, long ars, long acs, const float *panels, long deep, float *c, long crs,
                             long m, long n, long k, int add) {
    long each = deep_of(k);
    for (long k0 = 0; k0 < k; k0 += each)
        for (long n0 = 0; n0 < n; n0 += WIDE)
            by_panel(a + k0 * acs, ars, acs, panels + n0 * deep + k0 * TILE_N, TILE_N, deep * TILE_N, c + n0, crs, m,
                     at_most(WIDE, n - n0), at_most(each, k - k0), add || k0 > 0);
}

/* Rows of A that lie across, A[m, k] at a[m + k * acs]: tile after tile, in each all rows of one k together. */
static inline void pack_across(const float *a, long acs, long m, long k, float *packed) {
    for (long row = 0; row < k; row++)
        for (long m0 = 0; m0 < m; m0 += TILE_M) {
            float *to = packed + m0 * k + row * TILE_M;
            if (m - m0 >= TILE_M) memcpy(to, a + row * acs + m0, sizeof(float) * TILE_M);
            else for (long i = 0; i < m - m0; i++) to[i] = a[row * acs + m0 + i];
        }
}

/* C = or += A B, where A lies across. A tile uses a part of each line of A, and lines at such a distance push one
 * another out of the fastest cache, so A is packed first. */
static inline void product_across(const float *a, long acs, const float *b, long brs, long bcs, float *c, long crs,
                                  long m, long n, long k, int add) {
    float panels[DEEP_BOTH * WIDE] __attribute__((aligned(64))), packed[DEEP_BOTH * ROWS] __attribute__((aligned(64)));
    for (long k0 = 0; k0 < k; k0 += DEEP_BOTH) {
        long deep = at_most(DEEP_BOTH, k - k0);
        for (long from = 0; from < m; from += ROWS) {
            long rows = at_most(ROWS, m - from);
            pack_across(a + from + k0 * acs, acs, rows, deep, packed);
            for (long n0 = 0; n0 < n; n0 += WIDE) {
                long columns = at_most(WIDE, n - n0);
                pack_all(b + k0 * brs + n0 * bcs, brs, bcs, deep, columns, deep, panels);
                by_packed(packed, panels, deep * TILE_N, c + from * crs + n0, crs, rows, columns, deep, add || k0 > 0);
            }
        }
    }
}

/* C = or += A B, panels packed when their turn comes. */
static inline void product(const float *a, long ars, long acs, const float *b, long brs, long bcs, float *c, long crs,
                           long m, long n, long k, int add) {
    if (ars == 1 && acs != 1 && n > 2 * TILE_N) {
        product_across(a, acs, b, brs, bcs, c, crs, m, n, k, add);
        return;
    }
    float panels[DEEP_BOTH * WIDE] __attribute__((aligned(64)));
    for (long k0 = 0; k0 < k; k0 += DEEP_BOTH) {
        long deep = at_most(DEEP_BOTH, k - k0);
        for (long n0 = 0; n0 < n; n0 += WIDE) {
            long columns = at_most(WIDE, n - n0);
            pack_all(b + k0 * brs + n0 * bcs, brs, bcs, deep, columns, deep, panels);
            by_panel(a + k0 * acs, ars, acs, panels, TILE_N, deep * TILE_N, c + n0, crs, m, columns, deep,
                     add || k0 > 0);
        }
    }
}

/* Rows per piece, where rows are divided among threads: at most ROWS, whole tiles, as many pieces for every thread. */
static inline long piece_rows(long rows, int threads) {
    long pieces = whole((rows + ROWS - 1) / ROWS, threads);
    return whole((rows + pieces - 1) / pieces, TILE_M);
}

/* To be called inside a parallel region: pack all of B together. */
static inline void shared_pack(const float *b, long brs, long bcs, long k, long n, float *panels) {
#pragma omp for schedule(static)
    for (long n0 = 0; n0 < n; n0 += TILE_N) pack(b + n0 * bcs, brs, bcs, k, at_most(TILE_N, n - n0), panels + n0 * k);
}

/* To be called inside a parallel region; it does not wait for the other threads. C[M, N] = A B; C's values are summed
 * in the same order whatever the number of threads. */
static inline void shared_product(const float *a, long ars, long acs, const float *b, long brs, long bcs, float *c,
                                  long m, long n, long k, int threads) {
    long tall = (m + ROWS - 1) / ROWS, rows = whole((m + tall - 1) / tall, TILE_M);
    long wide = tall % threads ? threads : 1, columns = whole((n + wide - 1) / wide, TILE_N);
#pragma omp for collapse(2) schedule(static) nowait
    for (long m0 = 0; m0 < m; m0 += rows)
        for (long n0 = 0; n0 < n; n0 += columns)
            product(a + m0 * ars, ars, acs, b + n0 * bcs, brs, bcs, c + m0 * n + n0, n, at_most(rows, m - m0),
                    at_most(columns, n - n0), k, 0);
}
