/* Products of a few rows with matrices that come from memory. To be called by every thread of a parallel region, each
 * with its own piece. Reading weights takes most of the time: they are read once, by rows, in their order in memory. */
#pragma once
#include "weights.h"

#define AT_ONCE 16  /* rows of a matrix that are multiplied while the next are fetched; measured: 8 and 32 are slower */
#define ACROSS 2048 /* columns of those rows, so that they stay in the second cache */
#define LINE 16     /* floats of a cache line */

typedef struct { long from, to; } range_t;

/* What a thread reads of a matrix whose rows are n long. */
typedef struct { const void *w; long n; range_t rows, columns; int half; } piece_t;

/* The next rows, fetched line by line. */
typedef struct { const char *at; long row_bytes, rows, lines, line; } ahead_t;

/* The whole vectors of n columns that belong to a thread. */
static inline range_t columns_of(long n, int threads, int number) {
    long each = whole((n + threads - 1) / threads, LANES), from = at_most(n, number * each);
    return (range_t){from, at_most(n, from + each)};
}

static inline range_t own_columns(long n, int threads) { return columns_of(n, threads, thread()); }

static ahead_t coming(const piece_t *p, long row, long column) {
    long bytes = at_most(ACROSS, p->columns.to - column) * weight_bytes(p->half);
    return (ahead_t){weight_at(p->w, row * p->n + column, p->half), p->n * weight_bytes(p->half),
                     at_most(AT_ONCE, p->rows.to - row), (bytes + LINE_BYTES - 1) / LINE_BYTES, 0};
}

static inline void fetch_lines(ahead_t *ahead, long count) {
    for (; count > 0 && ahead->rows > 0; count--) {
        __builtin_prefetch(ahead->at + ahead->line * LINE_BYTES, 0, 2);
        if (++ahead->line < ahead->lines) continue;
        ahead->line = 0;
        ahead->at += ahead->row_bytes;
        ahead->rows--;
    }
}

/* Tiles of one and two rows are wider than those of products.h; otherwise each sum would wait for its last product. */
#define ONE_ROW (8 * LANES)
#define TWO_ROWS (4 * LANES)
#define FOUR(X, i) X(i, 0) X(i, 1) X(i, 2) X(i, 3)
#define EIGHT(X, i) FOUR(X, i) X(i, 4) X(i, 5) X(i, 6) X(i, 7)
#define BEGIN(i, v) vec sum##i##v = splat(0.0f);
#define ADD_PRODUCT(i, v) sum##i##v += s##i * weights(w, k * n + v * LANES, LANES, half);
#define END(i, v) store(y##i + v * LANES, add ? load(y##i + v * LANES) + sum##i##v : sum##i##v);

static INLINE void one_row(const float *x, const void *w, long n, float *y0, long depth, int add, const int half) {
    EIGHT(BEGIN, 0)
    for (long k = 0; k < depth; k++) {
        vec s0 = splat(x[k]);
        EIGHT(ADD_PRODUCT, 0)
    }
    EIGHT(END, 0)
}

static INLINE void two_rows(const float *x, long in_row, const void *w, long n, float *y0, float *y1, long depth,
                            int add, const int half) {
    FOUR(BEGIN, 0) FOUR(BEGIN, 1)
    for (long k = 0; k < depth; k++) {
        vec s0 = splat(x[k]), s1 = splat(x[in_row + k]);
        FOUR(ADD_PRODUCT, 0) FOUR(ADD_PRODUCT, 1)
    }
    FOUR(END, 0) FOUR(END, 1)
}

/* Columns of the next tile, for this many rows and columns left. */
static long tile_columns(long rows, long left) {
    if (rows == 1 && left >= ONE_ROW) return ONE_ROW;
    return rows == 2 && left >= TWO_ROWS ? TWO_ROWS : at_most(TILE_N, left);
}

/* A wide tile of one row or two. */
static INLINE void wide_tile(const float *x, long in_row, const void *w, long n, float *y, long out_row, long count,
                             long depth, int add, const int half) {
    if (count == 1) one_row(x, w, n, y, depth, add, half);
    else two_rows(x, in_row, w, n, y, y + out_row, depth, add, half);
}

/* out[row] = or += in[row] W over some of W's rows and columns, for `count` rows that lie `in_row` and `out_row` apart.
 * A few rows of W at a time are read from the second cache, while the next ones, or the first ones of `next`, are
 * prefetched into it; by itself the processor would not fetch them in time. */
static void stream(const float *in, long in_row, float *out, long out_row, long count, piece_t p, int add,
                   const piece_t *next) {
    float packed[AT_ONCE * TILE_N] __attribute__((aligned(64)));
    long groups = (count + TILE_M - 1) / TILE_M;
    for (long j0 = p.columns.from; j0 < p.columns.to; j0 += ACROSS) {
        long end = at_most(j0 + ACROSS, p.columns.to), strips = (end - j0 + TILE_N - 1) / TILE_N;
        for (long i = p.rows.from; i < p.rows.to; i += AT_ONCE) {
            long deep = at_most(AT_ONCE, p.rows.to - i);
            ahead_t ahead = i + deep < p.rows.to ? coming(&p, i + deep, j0)
                            : end < p.columns.to ? coming(&p, p.rows.from, end)
                            : next               ? coming(next, next->rows.from, next->columns.from)
                                                 : (ahead_t){0};
            long lines = (ahead.rows * ahead.lines + strips - 1) / strips;
            for (long j = j0, columns; j < end; j += columns) {
                const void *w = weight_at(p.w, i * p.n + j, p.half);
                const float *x = in + i, *tile = w;
                float *y = out + j;
                long n = p.n;
                int sum = add || i > p.rows.from;
                columns = tile_columns(count, end - j);
                fetch_lines(&ahead, lines * columns / TILE_N + 1);
                if (columns > TILE_N) {
                    if (p.half) wide_tile(x, in_row, w, n, y, out_row, count, deep, sum, 1);
                    else wide_tile(x, in_row, w, n, y, out_row, count, deep, sum, 0);
                    continue;
                }
                if (p.half || columns < TILE_N) {
                    if (p.half) pack_half(w, n, deep, columns, packed);
                    else pack(w, n, 1, deep, columns, packed);
                    tile = packed;
                    n = TILE_N;
                }
                for (long group = 0; group < groups; group++) {
                    long row = count * group / groups, some = count * (group + 1) / groups - row;
                    tiles[some](x + row * in_row, in_row, 1, tile, n, 0, y + row * out_row, out_row, deep, columns,
                                sum);
                }
            }
        }
    }
}
