/* The innermost loops of all products. Every number of rows has a function of its own. */
#include "products.h"

static inline void put(float *out, columns_t sums, long columns, int add) {
    if (columns == TILE_N) {
        store_columns(out, add ? plus(sums, load_columns(out)) : sums);
        return;
    }
    float parts[TILE_N];
    store_columns(parts, sums);
    for (long j = 0; j < columns; j++) out[j] = add ? out[j] + parts[j] : parts[j];
}

/* Written out by macros: sums held in an array would be kept in memory. */
#define START(i) columns_t sum##i = no_columns();
#define POINT(i) const float *a##i = a + i * ars;
#define TIMES(i) sum##i = plus_times(sum##i, a##i[k * acs], b_row);
#define TIMES_PACKED(i) sum##i = plus_times(sum##i, a[k * TILE_M + i], b_row);
#define FINISH(i) put(c + i * crs, sum##i, columns, add);
#define ROWS1(X) X(0)
#define ROWS2(X) X(0) X(1)
#define ROWS3(X) ROWS2(X) X(2)
#define ROWS4(X) ROWS3(X) X(3)
#define ROWS5(X) ROWS4(X) X(4)
#define ROWS6(X) ROWS5(X) X(5)
#define ROWS7(X) ROWS6(X) X(6)
#define ROWS8(X) ROWS7(X) X(7)
#define ROWS9(X) ROWS8(X) X(8)
#define ROWS10(X) ROWS9(X) X(9)
#define ROWS11(X) ROWS10(X) X(10)
#define ROWS12(X) ROWS11(X) X(11)
#define TILE(n)                                                                                                        \
    static void tile##n(const float *a, long ars, long acs, const float *b, long brs, long gap, float *c, long crs,    \
                        long k_count, long columns, int add) {                                                         \
        (void)gap;                                                                                                     \
        ROWS##n(START)                                                                                                 \
        ROWS##n(POINT)                                                                                                 \
        for (long k = 0; k < k_count; k++) {                                                                           \
            columns_t b_row = load_once(b + k * brs);                                                                  \
            ROWS##n(TIMES)                                                                                             \
        }                                                                                                              \
        ROWS##n(FINISH)                                                                                                \
    }                                                                                                                  \
    static void packed_tile##n(const float *a, const float *b, long gap, float *c, long crs, long k_count,             \
                               long columns, int add) {                                                                \
        (void)gap;                                                                                                     \
        ROWS##n(START)                                                                                                 \
        for (long k = 0; k < k_count; k++) {                                                                           \
            columns_t b_row = load_once(b + k * TILE_N);                                                               \
            ROWS##n(TIMES_PACKED)                                                                                      \
        }                                                                                                              \
        ROWS##n(FINISH)                                                                                                \
    }

/* Two panels: each value of A is loaded once for both. */
#define START_WIDE(i) columns_t left##i = no_columns(), right##i = no_columns();
#define BOTH(i, value) \
    { columns_t v = splat_columns(value); left##i = left##i + v * left_row; right##i = right##i + v * right_row; }
#define TIMES_WIDE(i) BOTH(i, a##i[k * acs])
#define TIMES_PACKED_WIDE(i) BOTH(i, a[k * TILE_M + i])
#define FINISH_WIDE(i)                                                                                                 \
    put(c + i * crs, left##i, TILE_N, add);                                                                            \
    put(c + i * crs + TILE_N, right##i, columns - TILE_N, add);
#define WIDE_TILE(n)                                                                                                   \
    static void wide_tile##n(const float *a, long ars, long acs, const float *b, long brs, long gap, float *c,         \
                             long crs, long k_count, long columns, int add) {                                          \
        ROWS##n(START_WIDE)                                                                                            \
        ROWS##n(POINT)                                                                                                 \
        for (long k = 0; k < k_count; k++) {                                                                           \
            columns_t left_row = load_once(b + k * brs), right_row = load_once(b + gap + k * brs);                     \
            ROWS##n(TIMES_WIDE)                                                                                        \
        }                                                                                                              \
        ROWS##n(FINISH_WIDE)                                                                                           \
    }                                                                                                                  \
    static void packed_wide_tile##n(const float *a, const float *b, long gap, float *c, long crs, long k_count,        \
                                    long columns, int add) {                                                           \
        ROWS##n(START_WIDE)                                                                                            \
        for (long k = 0; k < k_count; k++) {                                                                           \
            columns_t left_row = load_once(b + k * TILE_N), right_row = load_once(b + gap + k * TILE_N);               \
            ROWS##n(TIMES_PACKED_WIDE)                                                                                 \
        }                                                                                                              \
        ROWS##n(FINISH_WIDE)                                                                                           \
    }

#define FEW(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define MORE(X) X(7) X(8) X(9) X(10) X(11) X(12)
FEW(TILE)
#ifdef __AVX512F__
static inline columns_t splat_columns(float x) { columns_t v = x - (columns_t){0}; IN_REGISTER(v); return v; }
MORE(TILE) FEW(WIDE_TILE) MORE(WIDE_TILE)
#endif

#define NAMES(name) name##1, name##2, name##3, name##4, name##5, name##6
#ifdef __AVX512F__
#define ALL(name) {NULL, NAMES(name), name##7, name##8, name##9, name##10, name##11, name##12}
const tile_t wide_tiles[TILE_M + 1] = ALL(wide_tile);
const packed_tile_t packed_wide_tiles[TILE_M + 1] = ALL(packed_wide_tile);
#else
#define ALL(name) {NULL, NAMES(name)}
const tile_t wide_tiles[TILE_M + 1]; /* never called: no tile is wider than a panel */
const packed_tile_t packed_wide_tiles[TILE_M + 1];
#endif
const tile_t tiles[TILE_M + 1] = ALL(tile);
const packed_tile_t packed_tiles[TILE_M + 1] = ALL(packed_tile);
